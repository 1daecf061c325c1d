package cuda

import (
	"os"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
	"seqembed/kernels/ref"
)

// requireGPU opens the first device. Where there is none the test is skipped,
// unless EMBED_REQUIRE_GPU is 1.
func requireGPU(t *testing.T, dtype DType) *Backend {
	t.Helper()
	b, err := Open(0, Options{DType: dtype})
	if err != nil {
		if os.Getenv("EMBED_REQUIRE_GPU") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no device to test on: %v", err)
	}
	return b
}

// eachProduct runs a test with cuBLAS, where it is found, and with the
// package's own products.
func eachProduct(t *testing.T, test func(t *testing.T, own bool)) {
	t.Run("own products", func(t *testing.T) {
		t.Setenv(cublasVariable, "none")
		test(t, true)
	})
	t.Run("cuBLAS", func(t *testing.T) {
		b := requireGPU(t, FP32)
		defer b.Close()
		if _, err := b.Cublas(); err != nil {
			t.Skip(err)
		}
		test(t, false)
	})
}

// holdGPU keeps the first device open until the test ends. The driver takes the
// context down with its last user and makes it anew for the next, which costs
// more than most cases of a suite that opens a backend for each.
func holdGPU(t *testing.T) *Backend {
	t.Helper()
	b := requireGPU(t, FP32)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestGPU holds the first device to the conformance suite in float32.
func TestGPU(t *testing.T) {
	t.Logf("on %s", holdGPU(t).Name())
	eachProduct(t, func(t *testing.T, _ bool) {
		kernelstest.Run(t, func() kernels.Backend { return requireGPU(t, FP32) })
	})
}

// TestGPUOperandTypes compares a block with plain loops of the same precision:
// the device errs at most twice as much against the reference. It repeats bit
// for bit, and a sequence's rows do not depend on its batch.
func TestGPUOperandTypes(t *testing.T) {
	holdGPU(t)
	batch := batchOf(70, 1, 129, 3, 64)
	limits := kernels.Limits{Tokens: 500, Sequences: 8}
	want := block(t, ref.New(), batch, limits)
	eachProduct(t, func(t *testing.T, own bool) {
		for _, dtype := range []DType{BF16, FP16, FP32} {
			f := newFake(t)
			find := noCublas
			if !own {
				find = newFakeCublas(f).find
			}
			loops := openFake(t, f, dtype, find)
			baseline := block(t, loops, batch, limits)
			loops.Close()

			b := requireGPU(t, dtype)
			got := block(t, b, batch, limits)
			for i := range want {
				if e, bound := distance(got[i], want[i]), 2*distance(baseline[i], want[i])+0x1p-22; !(e <= bound) {
					t.Errorf("%s: read %d errs by %g, and %g is the bound", dtype, i, e, bound)
				}
			}
			for repeat := range 20 {
				for i, again := range block(t, b, batch, limits) {
					if !slices.Equal(again, got[i]) {
						t.Errorf("%s: read %d is not the same in run %d", dtype, i, repeat)
					}
				}
			}
			alone := block(t, b, batchOf(70), limits)
			for i, n := range []int{testWidth, 70 * testWidth, testWidth, 70 * testWidth} {
				if !slices.Equal(alone[i], got[i][:n]) {
					t.Errorf("%s: read %d depends on the batch", dtype, i)
				}
			}
			b.Close()
		}
	})
}
