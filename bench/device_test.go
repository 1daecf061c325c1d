package bench

import (
	"flag"
	"math"
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

	heuristicRows = flag.Int("bench.heuristic-rows", 0,
		"number of rows for which cuBLAS is asked for an algorithm; 0: the usual one")
	freeAlgorithm = flag.Bool("bench.free-algorithm", false,
		"ask cuBLAS for an algorithm for the rows of each batch, and take any")
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
		if *heuristicRows != 0 || *freeAlgorithm {
			t.Fatal("-bench.heuristic-rows and -bench.free-algorithm are for a GPU")
		}
		return cpu.New(0)
	case "cuda":
		dtype, err := cuda.ParseDType(*dtypeFlag)
		if err != nil {
			t.Fatal(err)
		}
		b, err := cuda.Open(0, cuda.Options{DType: dtype, HeuristicRows: *heuristicRows, FreeAlgorithm: *freeAlgorithm})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("on %s", b.Name())
		if without := b.WithoutCublas(); without != "" {
			t.Logf("no cuBLAS: %s", without)
		}
		return b
	}
	t.Fatalf("-bench.device %q is neither cpu nor cuda", *deviceFlag)
	return nil
}

// bars are the largest relative L2 errors that a model may have in an operand
// type (docs/numerics.md says where the figures come from).
type bars struct {
	pooled float64 // of a record's embedding
	states float64 // of the states of its tokens, after the last block or an inner one
}

// statesOverPooled is what rounding to 16 bits costs a record's tokens, over
// what it costs their mean: the roundings of single tokens have nothing to
// cancel against.
const statesOverPooled = 1.5

// barsOf looks up the bars of a model in fp32, bf16 or fp16. In float32 the
// states need none of their own.
func barsOf(dtype, model string, c transformer.Config) bars {
	fp32, bf16, fp16 := 3e-6, 1.5e-2, 3e-3
	switch {
	case c.Architecture == transformer.DNABERTS:
		fp32, bf16, fp16 = 1e-5, 5.6e-2, 1.13e-2
	case model == "esm2-tiny" || model == "esm2-hd128" || model == "esm2-8m":
		bf16, fp16 = 1.05e-2, 2.1e-3
	}
	switch dtype {
	case "bf16":
		return bars{bf16, statesOverPooled * bf16}
	case "fp16":
		return bars{fp16, statesOverPooled * fp16}
	}
	return bars{fp32, fp32}
}

// TestBars: every model has the bars that docs/numerics.md gives, and the
// tokens of a model in 16 bits have more room than their mean.
func TestBars(t *testing.T) {
	for _, c := range []struct {
		dtype, model   string
		pooled, states float64
	}{
		{"fp32", "dnabert-s", 1e-5, 1e-5},
		{"fp32", "esm2-8m", 3e-6, 3e-6},
		{"bf16", "dnabert-s", 5.6e-2, 8.4e-2},
		{"bf16", "dnabert-s-2l", 5.6e-2, 8.4e-2},
		{"bf16", "esm2-tiny", 1.05e-2, 1.575e-2},
		{"bf16", "esm2-hd128", 1.05e-2, 1.575e-2},
		{"bf16", "esm2-8m", 1.05e-2, 1.575e-2},
		{"bf16", "esm2-35m", 1.5e-2, 2.25e-2},
		{"bf16", "esm2-650m", 1.5e-2, 2.25e-2},
		{"fp16", "dnabert-s", 1.13e-2, 1.695e-2},
		{"fp16", "esm2-8m", 2.1e-3, 3.15e-3},
		{"fp16", "esm2-3b", 3e-3, 4.5e-3},
	} {
		config, ok := transformer.KnownConfig(c.model)
		if !ok {
			t.Fatalf("%s is not known", c.model)
		}
		got := barsOf(c.dtype, c.model, config)
		if math.Abs(got.pooled-c.pooled) > 1e-9 || math.Abs(got.states-c.states) > 1e-9 {
			t.Errorf("%s in %s has the bars %+v, and %g and %g are meant", c.model, c.dtype, got, c.pooled, c.states)
		}
	}
}
