package bench

import (
	"math"
	"testing"
	"time"

	"seqembed/kernels"
	"seqembed/transformer"
)

// TestProfile checks the profile of two forward passes, which has the FLOPs and the time of each operation. The sum of
// the FLOPs must be that of Config.FLOPs, and the sum of the times must not exceed the time that has elapsed.
func TestProfile(t *testing.T) {
	for _, name := range []string{"esm2-tiny", "dnabert-s-2l"} {
		backend := openDevice(t)
		defer backend.Close()
		model, config := loadModel(t, name, backend)
		defer model.Close()
		batch, lengths := sampleBatch(config, 300)
		// The limits are too small at first, so the encoder compiles a new runner. That runner must continue the
		// profile.
		profiled := &profiler{Backend: backend}
		e, err := transformer.NewEncoder(model, profiled, kernels.Limits{Tokens: 1, Sequences: 1}, transformer.Columns([]int{config.Layers}, transformer.Mean))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		var profile kernels.Profile
		if !profiled.add(&profile) {
			t.Fatalf("%s does not measure", backend.Name())
		}
		start := time.Now()
		const passes = 2
		for range passes {
			if _, err := e.Encode(batch); err != nil {
				t.Fatal(err)
			}
		}
		passed := time.Since(start)
		profiled.add(nil)
		if _, err := e.Encode(batch); err != nil {
			t.Fatal(err)
		}
		flops, took := 0.0, time.Duration(0)
		for _, o := range profile.Ops() {
			flops += o.FLOPs
			took += o.Took
			if o.Took <= 0 || o.Calls%passes != 0 {
				t.Errorf("%s: %s was called %d times and took %v", name, o.Op, o.Calls, o.Took)
			}
		}
		if want := passes * config.FLOPs(lengths...); math.Abs(flops-want) > 1e-9*want {
			t.Errorf("%s: the profile has %g FLOPs, the model %g", name, flops, want)
		}
		if took > passed {
			t.Errorf("%s: the operations took %v of %v", name, took, passed)
		}
	}
}

// profiler is a backend that can profile the runner that it has compiled last. Earlier runners must not be used any
// more.
type profiler struct {
	kernels.Backend
	runner  kernels.Runner
	profile *kernels.Profile
}

// Compile returns a runner that adds its timings to the current profile.
func (p *profiler) Compile(program *kernels.Program, limits kernels.Limits) (kernels.Runner, error) {
	r, err := p.Backend.Compile(program, limits)
	if err != nil {
		return nil, err
	}
	p.runner = r
	p.add(p.profile)
	return r, nil
}

// add adds the timings of later batches to profile. A nil profile stops profiling. add reports whether the backend
// supports profiling.
func (p *profiler) add(profile *kernels.Profile) bool {
	p.profile = profile
	return p.runner.Profile(profile)
}
