package kernelstest

import (
	"errors"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// withoutGEGLU is the reference backend without the activation GEGLU.
type withoutGEGLU struct{ kernels.Backend }

func (b withoutGEGLU) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	for _, op := range p.Ops() {
		if o, ok := op.Do.(kernels.Linear); ok && (o.Then == kernels.GEGLU || o.Then == unknown) {
			return nil, &kernels.OpError{Op: "linear", Err: kernels.ErrUnsupported}
		}
	}
	return b.Backend.Compile(p, l)
}

// TestLacks checks, for a backend without GEGLU, that no program of the suite has this activation, that the programs
// without it remain, and that the suite accepts the error with which the backend refuses it.
func TestLacks(t *testing.T) {
	backend := withoutGEGLU{ref.New()}
	refused := func(lacks ...kernels.Activation) (programs, refused int) {
		list := cases(computed(lacks), testing.Short())
		for seed := range uint64(8) {
			list = append(list, randomProgram(seed, computed(lacks)))
		}
		for _, c := range list {
			b := &Bench{Program: new(kernels.Program), t: t, model: backend.NewModel(), lens: []int{2}, tags: []int{0}, seed: 1}
			for _, v := range c.Build(b) {
				b.Output(v)
			}
			_, err := backend.Compile(b.Program, kernels.Limits{Tokens: 2, Sequences: 1})
			switch {
			case errors.Is(err, kernels.ErrUnsupported):
				refused++
			case err != nil:
				t.Errorf("%s: %v", c.Name, err)
			}
		}
		return len(list), refused
	}
	all, needed := refused()
	left, still := refused(kernels.GEGLU)
	if needed < 10 || still != 0 || left < all-needed {
		t.Errorf("%d of %d programs need the activation, and %d of %d of the suite without it", needed, all, still, left)
	}
	unsupported(t, backend, []kernels.Activation{kernels.GEGLU, unknown})
}
