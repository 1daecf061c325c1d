package transformer_test

import (
	"math"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/transformer"
)

// Most tests in this file remove or change one feature, such as rotary positions, in the program of a model and check
// that the embeddings change. If the model has lost the feature, the embeddings do not change, and the test with the
// name of the feature fails. The bounds are about half of the measured changes.
//
// Other tests check that the features are right: TestGoldens compares whole models with the results of their original
// code.

func TestALiBi(t *testing.T) {
	moved(t, "dnabert-s-2l", 0.05, func(op *kernels.Op) {
		changeAttention(op, func(o *kernels.Attention) { o.Slopes = nil })
	})
}

// TestALiBiSlopes checks that the slopes of twelve heads, which are eight of one geometric series and four of another,
// are not those of a single series.
func TestALiBiSlopes(t *testing.T) {
	moved(t, "dnabert-s-2l", 0.02, func(op *kernels.Op) {
		changeAttention(op, func(o *kernels.Attention) {
			o.Slopes = make([]float32, o.Heads)
			for h := range o.Slopes {
				o.Slopes[h] = float32(math.Exp2(-8 * float64(h+1) / float64(o.Heads)))
			}
		})
	})
}

func TestRotary(t *testing.T) {
	moved(t, "esm2-tiny", 0.05, func(op *kernels.Op) {
		changeAttention(op, func(o *kernels.Attention) {
			// All angles become 0, but the queries are still scaled.
			o.Rotary = &kernels.Rotary{QScale: o.Rotary.QScale, InvFreq: make([]float32, len(o.Rotary.InvFreq))}
		})
	})
}

// TestTokenDropoutScale checks that ESM-2 multiplies its token embeddings by 0.88, and that the scale 1 would change
// the results.
func TestTokenDropoutScale(t *testing.T) {
	moved(t, "esm2-tiny", 0.01, func(op *kernels.Op) {
		if o, ok := op.Do.(kernels.Embed); ok {
			if o.Scale != 0.88 {
				t.Errorf("the scale is %v, want 0.88", o.Scale)
			}
			o.Scale = 1
			op.Do = o
		}
	})
}

func changeAttention(op *kernels.Op, change func(*kernels.Attention)) {
	if o, ok := op.Do.(kernels.Attention); ok {
		change(&o)
		op.Do = o
	}
}

// moved runs the model twice: with its operations unchanged, and with the operations that the function change has
// changed. It fails the test unless the embeddings differ by at least bound, as a relative L2 error.
func moved(t *testing.T, name string, bound float64, change func(*kernels.Op)) {
	t.Helper()
	backend := cpu.New(2)
	defer backend.Close()
	plain := embed(t, name, backend)
	changed := embed(t, name, changedBackend{backend, change})
	diff, norm := 0.0, 0.0
	for i := range plain {
		d := float64(plain[i]) - float64(changed[i])
		diff += d * d
		norm += float64(plain[i]) * float64(plain[i])
	}
	e := math.Sqrt(diff / norm)
	t.Logf("moves by %.3g", e)
	if !(e >= bound) {
		t.Errorf("the embeddings move by %.3g, and at least %.3g is expected: the model does not have the feature", e, bound)
	}
}

// sample returns a batch of one sequence of 40 tokens for the model called name.
func sample(name string) kernels.Batch {
	config, _ := transformer.Families.Config(name)
	ids := make([]int32, 40)
	for i := range ids {
		ids[i] = int32(4 + (i*i+3*i)%(min(config.Vocabulary, 1000)-10))
	}
	var b kernels.Batch
	b.Append(ids)
	return b
}

func embed(t *testing.T, name string, b kernels.Backend) []float32 {
	t.Helper()
	model := load(t, name, b)
	defer model.Close()
	return encode(t, model, b, sample(name))
}

func load(t *testing.T, name string, b kernels.Backend) *transformer.Model {
	t.Helper()
	checkpoint, err := transformer.Families.Open("synthetic:" + name)
	if err != nil {
		t.Fatal(err)
	}
	model, err := transformer.Load(checkpoint, b)
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// changedBackend is a backend that compiles a copy of each program, whose operations the function change has changed.
type changedBackend struct {
	kernels.Backend
	change func(*kernels.Op)
}

func (b changedBackend) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	changed := new(kernels.Program)
	values := map[kernels.Value]kernels.Value{kernels.None: kernels.None}
	for _, op := range p.Ops() {
		b.change(&op)
		in := values[op.In]
		switch o := op.Do.(type) {
		case kernels.Embed:
			values[op.Out] = changed.Embed(o)
		case kernels.Linear:
			values[op.Out] = changed.Linear(in, o, values[op.Add])
		case kernels.Norm:
			values[op.Out] = changed.Norm(in, o)
		case kernels.Attention:
			values[op.Out] = changed.Attention(in, o)
		case kernels.Range:
			values[op.Out] = changed.Pool(in, o)
		case kernels.Output:
			changed.Output(in)
		}
	}
	return b.Backend.Compile(changed, l)
}

// TestSlopesOfTwelveHeads checks the ALiBi slopes of a model with twelve heads. By the published formula the first
// eight are 2^(−8i/8) for i = 1 to 8, and the last four are every other slope of a model with sixteen heads.
func TestSlopesOfTwelveHeads(t *testing.T) {
	want := []float64{0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625,
		0.7071067811865476, 0.35355339059327384, 0.17677669529663692, 0.08838834764831849}
	var got []float32
	backend := cpu.New(2)
	defer backend.Close()
	embed(t, "dnabert-s-2l", changedBackend{backend, func(op *kernels.Op) {
		changeAttention(op, func(o *kernels.Attention) { got = o.Slopes })
	}})
	if len(got) != len(want) {
		t.Fatalf("%d slopes, want %d", len(got), len(want))
	}
	for h, w := range want {
		if got[h] != float32(w) {
			t.Errorf("head %d has slope %v, want %v", h, got[h], float32(w))
		}
	}
}
