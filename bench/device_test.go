package bench

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cpu"
	"seqembed/kernels/cuda"
	"seqembed/transformer"
)

// The device that parity and throughput are measured on. A test that nobody
// has sent to a GPU stays on the CPU, so that it says the same on every
// machine.
var (
	deviceFlag = flag.String("bench.device", "auto", "cpu, cuda for the first GPU, or auto: the CPU for tests, for benchmarks the first GPU that can be used, or else the CPU")
	dtypeFlag  = flag.String("bench.dtype", "auto", "type of the matrix products: fp32, on a GPU bf16 or fp16 as well, or auto: fp32, for benchmarks on a GPU bf16")
)

// TestMain prints, before benchmarks, what they are measured on, as
// configuration lines of the format that benchstat reads.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() != "" {
		if err := printConfiguration(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func printConfiguration(w io.Writer) error {
	at, err := benchmarkPlace()
	if err != nil {
		return err
	}
	backend, err := at.open()
	if err != nil {
		return err
	}
	defer backend.Close()
	if at.noGPU != nil {
		fmt.Fprintf(w, "gpu: none, %v\n", at.noGPU)
	}
	_, err = fmt.Fprintf(w, "device: %s\ndtype: %s\nbatch: %d tokens\n", backend.Name(), at.dtype, at.batchTokens())
	return err
}

// place is a device and the type of the products on it.
type place struct {
	gpu   int // an ordinal, or noOrdinal for the CPU
	dtype string
	noGPU error // why auto means the CPU
}

// noOrdinal stands for the CPU.
const noOrdinal = -1

// testPlace is where tests run.
func testPlace() (place, error) {
	at := place{gpu: noOrdinal, dtype: "fp32"}
	if *deviceFlag == "cuda" {
		at.gpu = 0
	}
	return at.asAsked()
}

// benchmarkPlace is where benchmarks run. A machine's GPUs are looked for
// once.
var benchmarkPlace = sync.OnceValues(func() (place, error) {
	at := place{gpu: noOrdinal, dtype: "fp32"}
	switch *deviceFlag {
	case "cuda":
		at.gpu = 0
	case "auto":
		found := cuda.Devices()
		at.noGPU = found.Err
		if usable := found.Usable(); len(usable) > 0 {
			at.gpu, at.noGPU = usable[0], nil
		} else if len(found.Devices) > 0 {
			at.noGPU = found.Devices[0].Err
		}
	}
	if at.gpu != noOrdinal {
		at.dtype = "bf16"
	}
	return at.asAsked()
})

// asAsked checks the flags and applies the type that they name.
func (at place) asAsked() (place, error) {
	if !slices.Contains([]string{"auto", "cpu", "cuda"}, *deviceFlag) {
		return at, fmt.Errorf("-bench.device %q is not auto, cpu or cuda", *deviceFlag)
	}
	if *dtypeFlag != "auto" {
		at.dtype = *dtypeFlag
	}
	if at.gpu == noOrdinal && at.dtype != "fp32" {
		return at, fmt.Errorf("a CPU computes in fp32, not in %s", at.dtype)
	}
	return at, nil
}

func (at place) open() (kernels.Backend, error) {
	if at.gpu == noOrdinal {
		return cpu.New(0), nil
	}
	dtype, err := cuda.ParseDType(at.dtype)
	if err != nil {
		return nil, err
	}
	return cuda.Open(at.gpu, cuda.Options{DType: dtype})
}

// batchTokens is how many tokens a batch of BenchmarkForward has: as asked
// for, or enough to keep the device busy.
func (at place) batchTokens() int {
	switch {
	case *forwardTokens > 0:
		return *forwardTokens
	case at.gpu == noOrdinal:
		return 2048
	}
	return 32768
}

// totalTokens is how many tokens all batches of BenchmarkForward have: one
// batch on a CPU, and on a GPU several, each begun before the last one is
// read.
func (at place) totalTokens() int {
	switch {
	case *forwardTotal > 0:
		return max(*forwardTotal, at.batchTokens())
	case at.gpu == noOrdinal:
		return at.batchTokens()
	}
	return 8 * at.batchTokens()
}

// openDevice opens the backend that the flags name. A GPU that is asked for
// and not there is a failure, never a skip.
func openDevice(t testing.TB) kernels.Backend {
	t.Helper()
	at, err := whereToRun(t)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := at.open()
	if err != nil {
		t.Fatal(err)
	}
	if _, benchmark := t.(*testing.B); !benchmark {
		t.Logf("on %s", backend.Name())
	}
	return backend
}

// whereToRun is the place for a test or a benchmark.
func whereToRun(t testing.TB) (place, error) {
	if _, benchmark := t.(*testing.B); benchmark {
		return benchmarkPlace()
	}
	return testPlace()
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
