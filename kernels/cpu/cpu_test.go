package cpu

import (
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
)

// names are all the variants that some machine can run.
var names = []string{"portable", "avx2", "avx512"}

// forced runs a test with each variant in turn.
func forced(t *testing.T, test func(t *testing.T, v *variant)) {
	here := map[string]*variant{}
	for _, v := range variants() {
		here[v.name] = v
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if here[name] == nil {
				t.Skipf("this machine, or this build, has no %s", name)
			}
			test(t, here[name])
		})
	}
}

func TestConformance(t *testing.T) {
	forced(t, func(t *testing.T, v *variant) {
		t.Parallel() // most of the time goes to the reference, on one core
		kernelstest.Run(t, func() kernels.Backend { return newBackend(3, v) })
	})
}
