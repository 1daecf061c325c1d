package cuda

import (
	"os"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
)

// requireGPU opens the first device. If there is none, it skips the test, or fails it if EMBED_REQUIRE_GPU is 1.
func requireGPU(t *testing.T, dtype kernels.DType) *Backend {
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

// eachProduct runs a test with the package's own matrix products (own is true). If cuBLAS can be loaded, it also runs
// the test with cuBLAS.
func eachProduct(t *testing.T, test func(t *testing.T, own bool)) {
	t.Run("own products", func(t *testing.T) {
		t.Setenv(cublasVariable, "none")
		test(t, true)
	})
	t.Run("cuBLAS", func(t *testing.T) {
		b := requireGPU(t, kernels.FP32)
		defer b.Close()
		if err := b.Cublas().Err; err != nil {
			t.Skip(err)
		}
		test(t, false)
	})
}

// holdGPU keeps the first device open until the test ends. If no backend were open, the driver would destroy the
// context, and create it again for the next backend. Creating it takes longer than most cases of a suite.
func holdGPU(t *testing.T) *Backend {
	t.Helper()
	b := requireGPU(t, kernels.FP32)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestGPU runs the conformance suite on the first device in every type, with the package's own matrix products. With
// cuBLAS it runs only the cases of the suite that contain matrix products. In bf16 it also checks that batches allocate
// nothing.
func TestGPU(t *testing.T) {
	t.Logf("on %s", holdGPU(t).Name())
	known := new(kernelstest.Known)
	eachProduct(t, func(t *testing.T, own bool) {
		suite := kernelstest.Run
		if !own {
			suite = kernelstest.RunProducts
		}
		for _, dtype := range operandTypes {
			t.Run(dtype.String(), func(t *testing.T) {
				suite(t, dtype, known, func() kernels.Backend { return requireGPU(t, dtype) })
				if dtype == kernels.BF16 && !raceDetector { // the race detector allocates
					t.Run("allocations", func(t *testing.T) {
						b := requireGPU(t, dtype)
						defer b.Close()
						kernelstest.Allocations(t, b, dtype)
					})
				}
			})
		}
	})
}

// operandTypes lists the types in which the conformance suite runs.
var operandTypes = []kernels.DType{kernels.FP32, kernels.BF16, kernels.FP16}
