package cuda

import (
	"os"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
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
		if err := b.Cublas().Err; err != nil {
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

// TestGPU holds the first device to the conformance suite in every type, with cuBLAS and with the package's own
// products; and batches to allocate nothing.
func TestGPU(t *testing.T) {
	t.Logf("on %s", holdGPU(t).Name())
	known := new(kernelstest.Known)
	eachProduct(t, func(t *testing.T, own bool) {
		suite := kernelstest.Run
		if !own {
			suite = kernelstest.RunProducts
		}
		for dtype, operands := range operandTypes {
			t.Run(dtype.String(), func(t *testing.T) {
				suite(t, operands, known, func() kernels.Backend { return requireGPU(t, dtype) })
				if dtype == BF16 && !raceDetector { // which allocates by itself
					t.Run("allocations", func(t *testing.T) {
						b := requireGPU(t, dtype)
						defer b.Close()
						kernelstest.Allocations(t, b, operands)
					})
				}
			})
		}
	})
}

// operandTypes are the types of the conformance suite.
var operandTypes = map[DType]kernels.DType{FP32: kernels.FP32, BF16: kernels.BF16, FP16: kernels.FP16}
