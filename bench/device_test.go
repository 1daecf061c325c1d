package bench

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
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
	deviceFlag = flag.String("bench.device", "auto",
		"cpu, cuda for the first GPU, or auto: the CPU for tests, for benchmarks the first usable GPU, or else the CPU")
	dtypeFlag = flag.String("bench.dtype", "auto",
		"type of the matrix products: fp32, on a GPU bf16 or fp16 as well, or auto: fp32, for benchmarks on a GPU bf16")

	firstAlgorithm = flag.Bool("bench.first-algorithm", false,
		"take the first algorithm that cuBLAS offers, also where another tile is preferred")
	freeAlgorithm = flag.Bool("bench.free-algorithm", false,
		"ask cuBLAS for an algorithm for the rows of each batch, and take any")
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
	if why := withoutCublas(backend); why != "" {
		fmt.Fprintf(w, "cublas: none, %s\n", why)
	}
	_, err = fmt.Fprintf(w, "device: %s\ndtype: %s\nbatch: %d tokens\n", backend.Name(), at.dtype, at.batchTokens())
	return err
}

// withoutCublas is why no cuBLAS multiplies on a GPU; it is empty where one
// does, and on a CPU.
func withoutCublas(backend kernels.Backend) string {
	if gpu, ok := backend.(*cuda.Backend); ok && gpu.Cublas().Err != nil {
		return gpu.Cublas().Err.Error()
	}
	return ""
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
	if at.gpu == noOrdinal && at.dtype == "fp16" {
		return at, errors.New("a CPU takes fp32 or bf16, not fp16")
	}
	if at.gpu == noOrdinal && (*firstAlgorithm || *freeAlgorithm) {
		return at, errors.New("-bench.first-algorithm and -bench.free-algorithm are for a GPU")
	}
	return at, nil
}

func (at place) open() (kernels.Backend, error) {
	dtype, err := kernels.ParseDType(at.dtype)
	if err != nil {
		return nil, err
	}
	if at.gpu == noOrdinal {
		return cpu.Open(cpu.Options{BF16Weights: dtype == kernels.BF16}), nil
	}
	return cuda.Open(at.gpu, cuda.Options{DType: cuda.DType(dtype), FirstAlgorithm: *firstAlgorithm, FreeAlgorithm: *freeAlgorithm})
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
	if _, benchmark := t.(*testing.B); !benchmark { // TestMain has said it for benchmarks
		t.Logf("on %s", backend.Name())
		if why := withoutCublas(backend); why != "" {
			t.Logf("no cuBLAS: %s", why)
		}
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
	case c.Family == transformer.DNABERT:
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

// TestPlace: a test that nobody has sent to a GPU runs on the CPU, and what is
// printed before benchmarks are configuration lines.
func TestPlace(t *testing.T) {
	if *deviceFlag == "auto" && *dtypeFlag == "auto" {
		if at, err := testPlace(); err != nil || at.gpu != noOrdinal || at.dtype != "fp32" {
			t.Errorf("tests run at %+v, %v", at, err)
		}
	}
	var printed strings.Builder
	if err := printConfiguration(&printed); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^[a-z][^[:upper:][:space:]]*: \S`) // golang.org/design/14313-benchmark-format
	for l := range strings.Lines(printed.String()) {
		if !line.MatchString(l) {
			t.Errorf("%q is no configuration line", l)
		}
	}
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
		config, ok := transformer.Families.Config(c.model)
		if !ok {
			t.Fatalf("%s is not known", c.model)
		}
		got := barsOf(c.dtype, c.model, config)
		if math.Abs(got.pooled-c.pooled) > 1e-9 || math.Abs(got.states-c.states) > 1e-9 {
			t.Errorf("%s in %s has the bars %+v, and %g and %g are meant", c.model, c.dtype, got, c.pooled, c.states)
		}
	}
}
