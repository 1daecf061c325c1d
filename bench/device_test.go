package bench

import (
	"flag"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/kernels/cuda"
	"seqembed/transformer"
)

// The device that parity and throughput are measured on.
var (
	deviceFlag = flag.String("bench.device", "cpu", "cpu, or cuda for the first GPU")
	dtypeFlag  = flag.String("bench.dtype", "fp32", "type of the matrix products on a GPU: fp32, bf16 or fp16")
)

// openDevice opens the backend that the flags name. A GPU that is asked for
// and not there is a failure, never a skip.
func openDevice(t testing.TB) kernels.Backend {
	t.Helper()
	switch *deviceFlag {
	case "cpu":
		if *dtypeFlag != "fp32" {
			t.Fatalf("a CPU computes in fp32, not in %s", *dtypeFlag)
		}
		return cpu.New(0)
	case "cuda":
		dtype, err := cuda.ParseDType(*dtypeFlag)
		if err != nil {
			t.Fatal(err)
		}
		b, err := cuda.Open(0, cuda.Options{DType: dtype})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("on %s", b.Name())
		return b
	}
	t.Fatalf("-bench.device %q is neither cpu nor cuda", *deviceFlag)
	return nil
}

// bar is the largest relative L2 error of a model's embeddings in the type
// under test (docs/numerics.md says where the figures come from).
func bar(model string, c transformer.Config) float64 {
	half := 12e-3 // what PyTorch's bf16 autocast errs by at worst: ESM-2 650M
	full := 3e-6
	switch {
	case c.Architecture == transformer.DNABERTS:
		half, full = 45e-3, 1e-5
	case model == "esm2-tiny" || model == "esm2-hd128" || model == "esm2-8m":
		half = 8.4e-3
	}
	switch *dtypeFlag {
	case "bf16":
		return 1.25 * half
	case "fp16":
		return half / 5
	}
	return full
}
