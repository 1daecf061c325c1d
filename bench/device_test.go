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

// Flags for the device of parity tests and benchmarks. Tests run on the CPU by default, so that their results do not
// depend on the machine.
var (
	deviceFlag = flag.String("bench.device", "auto",
		"device: cpu, cuda (the first GPU) or auto (tests: the CPU; benchmarks: the first usable GPU, else the CPU)")
	dtypeFlag = flag.String("bench.dtype", "auto",
		"type of the matrix products: fp32, bf16, fp16 (only on a GPU) or auto (fp32; benchmarks on a GPU: bf16)")

	tile = flag.Int("bench.tile", 0,
		"prefer algorithms of cuBLAS with this tile; -1: the first algorithm that cuBLAS offers (default 128 by 128 on Hopper)")
	freeAlgorithm = flag.Bool("bench.free-algorithm", false,
		"let cuBLAS choose any algorithm for the rows of each batch")
)

// TestMain prints the configuration before benchmarks, in the lines that benchstat reads.
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
	at, err := benchmarkTarget()
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

// withoutCublas returns the reason why a backend computes matrix products on a GPU without cuBLAS. It returns "" for a
// backend with cuBLAS and for any other backend.
func withoutCublas(backend kernels.Backend) string {
	if gpu, ok := backend.(*cuda.Backend); ok && gpu.Cublas().Err != nil {
		return gpu.Cublas().Err.Error()
	}
	return ""
}

// target is a device and the type of the operands of its matrix products.
type target struct {
	gpu   int // ordinal of the GPU, or noOrdinal for the CPU
	dtype string
	noGPU error // the reason why auto chose the CPU, or nil
}

// noOrdinal, as the value of target.gpu, stands for the CPU.
const noOrdinal = -1

// testTarget returns the device and the operand type of tests, as the flags -bench.device and -bench.dtype say.
func testTarget() (target, error) {
	at := target{gpu: noOrdinal, dtype: "fp32"}
	if *deviceFlag == "cuda" {
		at.gpu = 0
	}
	return at.withFlags()
}

// benchmarkTarget returns the device and the operand type of benchmarks. It searches for GPUs only once.
var benchmarkTarget = sync.OnceValues(func() (target, error) {
	at := target{gpu: noOrdinal, dtype: "fp32"}
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
	return at.withFlags()
})

// withFlags returns the target with the operand type of -bench.dtype, unless that is auto. It fails if -bench.device is
// invalid, or if another flag asks for what the device cannot do. The operand type is checked by open.
func (at target) withFlags() (target, error) {
	if !slices.Contains([]string{"auto", "cpu", "cuda"}, *deviceFlag) {
		return at, fmt.Errorf("-bench.device %q is not auto, cpu or cuda", *deviceFlag)
	}
	if *dtypeFlag != "auto" {
		at.dtype = *dtypeFlag
	}
	if at.gpu == noOrdinal && at.dtype == "fp16" {
		return at, errors.New("a CPU supports fp32 and bf16, not fp16")
	}
	if at.gpu == noOrdinal && (*tile != 0 || *freeAlgorithm) {
		return at, errors.New("-bench.tile and -bench.free-algorithm are for a GPU")
	}
	return at, nil
}

func (at target) open() (kernels.Backend, error) {
	dtype, err := kernels.ParseDType(at.dtype)
	if err != nil {
		return nil, err
	}
	if at.gpu == noOrdinal {
		return cpu.Open(cpu.Options{BF16: dtype == kernels.BF16}), nil
	}
	return cuda.Open(at.gpu, cuda.Options{DType: dtype, Tile: int32(*tile), FreeAlgorithm: *freeAlgorithm})
}

// batchTokens returns the number of tokens in a batch of BenchmarkForward. It is the value of -bench.tokens if that is
// set, and otherwise large enough to keep the device busy.
func (at target) batchTokens() int {
	switch {
	case *forwardTokens > 0:
		return *forwardTokens
	case at.gpu == noOrdinal:
		return 2048
	}
	return 32768
}

// totalTokens returns the number of tokens in all batches of BenchmarkForward: by default one batch on a CPU and eight
// on a GPU, where the benchmark starts each batch before it waits for the previous one.
func (at target) totalTokens() int {
	switch {
	case *forwardTotal > 0:
		return max(*forwardTotal, at.batchTokens())
	case at.gpu == noOrdinal:
		return at.batchTokens()
	}
	return 8 * at.batchTokens()
}

// openDevice opens the backend that the flags -bench.device and -bench.dtype select. If a requested GPU is missing, it
// fails the test instead of skipping it.
func openDevice(t testing.TB) kernels.Backend {
	t.Helper()
	at, err := targetOf(t)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := at.open()
	if err != nil {
		t.Fatal(err)
	}
	if _, benchmark := t.(*testing.B); !benchmark { // for benchmarks, TestMain has printed the name
		t.Logf("on %s", backend.Name())
		if why := withoutCublas(backend); why != "" {
			t.Logf("no cuBLAS: %s", why)
		}
	}
	return backend
}

// targetOf returns the device and the operand type that the flags select for a test or for a benchmark.
func targetOf(t testing.TB) (target, error) {
	if _, benchmark := t.(*testing.B); benchmark {
		return benchmarkTarget()
	}
	return testTarget()
}

// bars are the largest permitted relative L2 errors of a model with an operand type. docs/numerics.md explains the
// values.
type bars struct {
	pooled float64 // largest error of a record's embedding
	states float64 // largest error of the hidden states of a record's tokens, after any block
}

// statesOverPooled is the ratio between two error limits with 16-bit operands: that for the hidden states of a record,
// and that for their mean. The limit for the mean is smaller, because the rounding errors of single tokens cancel in
// the mean.
const statesOverPooled = 1.5

// barsOf returns the largest permitted errors of a model for a type of the operands: fp32, bf16 or fp16. In fp32 they
// are the same for the hidden states and the embedding. Any other dtype counts as fp32.
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

// TestTarget checks that tests run on the CPU by default, and that the lines printed before benchmarks are valid
// configuration lines.
func TestTarget(t *testing.T) {
	if *deviceFlag == "auto" && *dtypeFlag == "auto" {
		if at, err := testTarget(); err != nil || at.gpu != noOrdinal || at.dtype != "fp32" {
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
			t.Errorf("%q is not a configuration line", l)
		}
	}
}

// TestBars checks that barsOf returns the error limits that docs/numerics.md gives for some models. With 16-bit
// operands the limit for hidden states is 1.5 times that for the mean over tokens; in fp32 they are equal.
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
			t.Fatalf("unknown model %s", c.model)
		}
		got := barsOf(c.dtype, c.model, config)
		if math.Abs(got.pooled-c.pooled) > 1e-9 || math.Abs(got.states-c.states) > 1e-9 {
			t.Errorf("%s in %s has the bars %+v, want %g and %g", c.model, c.dtype, got, c.pooled, c.states)
		}
	}
}
