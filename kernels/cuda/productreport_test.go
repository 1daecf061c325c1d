package cuda

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
)

// multiplied is a backend that has computed matrix products with one weight, [16, 8]. For each given number of rows it
// has computed two products with a bias and a result in the operands' type. For seven rows it has computed three more,
// without a bias: one with a float32 result and no addend, one with a float32 result and an addend, and one with a
// result in the operands' type and an addend.
type multiplied struct {
	*Backend
	fake   *fakeGPU
	cublas *fakeCublas
}

func multiply(t *testing.T, opts Options, set func(c *fakeCublas), rows ...int) multiplied {
	t.Helper()
	f := newFake(t)
	c := newFakeCublas(f)
	set(c)
	if opts.DType == kernels.Auto {
		opts.DType = kernels.BF16
	}
	b, err := open(f.driver(), 0, opts, f.images(), c.find)
	if err != nil {
		t.Fatal(err)
	}
	weights := newNet(t, b)
	w, bias := weights.load(kernels.Projection, 1, 1, 16, 8), weights.load(kernels.Vector, 2, 1, 16)
	// back is for products that read the result of another product. The method report leaves them out.
	back := weights.load(kernels.Projection, 3, 1, 1000, 16)
	if len(rows) > 0 {
		n := newNet(t, b)
		x := n.tokens(8)
		for range 2 {
			y := n.Linear(x, kernels.Linear{W: w, Bias: bias}, kernels.None)
			n.Output(n.Linear(y, kernels.Linear{W: back}, kernels.None))
		}
		r := n.compile(b, kernels.Limits{Tokens: 100, Sequences: 2})
		for _, rows := range rows {
			if _, wait := n.start(r, batchOf(rows)); wait() != nil {
				t.Fatal("it fails")
			}
		}
		if err := errors.Join(r.Close(), n.model.Close()); err != nil {
			t.Fatal(err)
		}
	}
	n := newNet(t, b)
	x, residual := n.tokens(8), n.tokens(16)
	n.Output(n.Linear(x, kernels.Linear{W: w}, kernels.None))
	n.Output(n.Linear(x, kernels.Linear{W: w}, residual))
	n.Output(n.Linear(n.Linear(x, kernels.Linear{W: w}, residual), kernels.Linear{W: back}, kernels.None))
	n.run(b, batchOf(7), kernels.Limits{Tokens: 100, Sequences: 2})
	if err := weights.model.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return multiplied{b, f, c}
}

// report returns the reports of the products, without those of 1000 columns, which only read the result of another
// product.
func (m multiplied) report() []ProductReport {
	return slices.DeleteFunc(m.Products(), func(r ProductReport) bool { return r.N == 1000 })
}

func describeAll(list []ProductReport) string {
	var lines []string
	for _, r := range list {
		lines = append(lines, r.String())
	}
	return strings.Join(lines, "\n")
}

// TestProducts checks that the report names, for each shape of a matrix product, the algorithm, how often cuBLAS
// computed the product, and the reason if the package's own kernel computed it. The report must be the same after it
// was written and read as JSON, and after Close.
func TestProducts(t *testing.T) {
	const (
		second = "cuBLAS algorithm 2, tile 21, stages 26, inner shape 27, cluster shape 28, " +
			"split-K 1, workspace 2097152 bytes, 0.75 waves"
		narrowSum = "linear 16x8 + add: own product, 7 rows in 1 call: " +
			"cuBLAS requires a residual of the result's type\n"
		sum  = "linear 16x8 + add in float32: " + second + ", asked for 4096 rows, took 7 rows in 1 call\n"
		wide = "linear 16x8 in float32: " + second + ", asked for 4096 rows, took 7 rows in 1 call"
		own  = "own product, 7 rows in 1 call: "
	)
	pieces := func(shape, own string) string {
		return shape + ": own product, " + own +
			": cuBLAS offers 1 algorithm for [4096 8]·[16 8]ᵀ, and none that sums in one piece"
	}
	for _, c := range []struct {
		name string
		set  func(c *fakeCublas)
		rows []int
		want string
	}{
		{"all taken", func(*fakeCublas) {}, []int{7, 9},
			narrowSum + sum + "linear 16x8 + bias: " + second + ", asked for 4096 rows, took 32 rows in 4 calls\n" + wide},
		{"attributes that the library does not know", func(c *fakeCublas) {
			c.unknown = map[int32]bool{driver.ConfigID: true, driver.ConfigInnerShape: true, driver.ConfigClusterShape: true}
		}, []int{7}, strings.NewReplacer("algorithm 2", "algorithm -", "shape 27", "shape -", "shape 28", "shape -").
			Replace(narrowSum + sum + "linear 16x8 + bias: " + second + ", asked for 4096 rows, took 14 rows in 2 calls\n" + wide)},
		{"some refused", func(c *fakeCublas) {
			c.refused = func(rows int) bool { return rows > 7 }
		}, []int{7, 20, 9, 10, 9, 11, 12, 13},
			narrowSum + sum + "linear 16x8 + bias: " + second + ", asked for 4096 rows, took 14 rows in 2 calls: " +
				"own product, 168 rows in 14 calls: it refuses 13 rows: " +
				"cublasLtMatmulAlgoCheck: CUBLAS_STATUS_NOT_SUPPORTED (15)\n" + wide},
		{"none in one piece", func(c *fakeCublas) { c.none = true }, []int{7},
			narrowSum + pieces("linear 16x8 + add in float32", "7 rows in 1 call") + "\n" +
				pieces("linear 16x8 + bias", "14 rows in 2 calls") + "\n" + pieces("linear 16x8 in float32", "7 rows in 1 call")},
		{"no answer", func(c *fakeCublas) { c.answer = 15 }, nil,
			narrowSum + "linear 16x8 + add in float32: " + own +
				"cublasLtMatmulAlgoGetHeuristic for [4096 8]·[16 8]ᵀ: CUBLAS_STATUS_NOT_SUPPORTED (15)\n" +
				"linear 16x8 in float32: " + own +
				"cublasLtMatmulAlgoGetHeuristic for [4096 8]·[16 8]ᵀ: CUBLAS_STATUS_NOT_SUPPORTED (15)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := multiply(t, Options{}, c.set, c.rows...)
			list := b.report()
			if got := describeAll(list); got != c.want {
				t.Errorf("the report is\n%s\nand not\n%s", got, c.want)
			}
			line, err := json.Marshal(list)
			var again []ProductReport
			if err == nil {
				err = json.Unmarshal(line, &again)
			}
			if err != nil || describeAll(again) != describeAll(list) {
				t.Errorf("as JSON %s: %v", line, err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if got := b.report(); describeAll(got) != describeAll(list) {
				t.Errorf("after Close the report is\n%s", describeAll(got))
			}
			b.fake.checkFreed()
		})
	}
	b := openFake(t, newFake(t), kernels.BF16, noCublas)
	defer b.Close()
	if list := b.Products(); len(list) > 0 {
		t.Errorf("without cuBLAS the report is\n%s", describeAll(list))
	}
}

// TestAlgorithmOptions checks which algorithm of cuBLAS the backend chooses. By default on Hopper in bf16 it is the one
// with a tile of 128 by 128, if cuBLAS offers it for largeRows rows, and otherwise the first usable one. With Tile it
// is one with another tile, or always the first usable one. With FreeAlgorithm the backend asks again for the rows of
// each batch. Both options must be part of the backend's name and exclude each other.
func TestAlgorithmOptions(t *testing.T) {
	const plain = "cuda Fake H200, sm_90, driver CUDA 12.4, cuBLASLt 12.4.5, bf16"
	for _, c := range []struct {
		opts     Options
		large    bool
		major    int32 // major compute capability
		backend  string
		asked    string // numbers of rows of the heuristic's queries
		answered string
	}{
		{Options{}, false, 9, plain, "[4096 32768 4096 32768 4096 32768 4096 32768]", "algorithm 2, tile 21"},
		{Options{}, true, 9, plain, "[4096 32768 4096 32768 4096 32768 4096 32768]", "algorithm 3, tile 20"},
		{Options{}, false, 8, strings.Replace(plain, "sm_90", "sm_80", 1), "[4096 4096 4096 4096]", "algorithm 2, tile 21"},
		{Options{DType: kernels.FP16}, false, 9, strings.Replace(plain, "bf16", "fp16", 1), "[4096 4096 4096 4096]", "algorithm 2, tile 21"},
		{Options{Tile: -1}, false, 9, strings.Replace(plain, "12.4.5", "12.4.5 with first algorithms", 1),
			"[4096 4096 4096 4096]", "algorithm 2, tile 21"},
		{Options{Tile: 20}, true, 9, strings.Replace(plain, "12.4.5", "12.4.5 with tile 20", 1),
			"[4096 32768 4096 32768 4096 32768 4096 32768]", "algorithm 3, tile 20"},
		{Options{Tile: 29}, false, 9, strings.Replace(plain, "12.4.5", "12.4.5 with tile 29", 1),
			"[4096 32768 4096 32768 4096 32768 4096 32768]", "algorithm 2, tile 21"},
		{Options{FreeAlgorithm: true}, false, 9, strings.Replace(plain, "12.4.5", "12.4.5 with free algorithms", 1),
			"[100 100 7 7 9 9 7 7 100 100 7 7]", "split-K 4"},
	} {
		b := multiply(t, c.opts, func(f *fakeCublas) {
			f.free, f.large, f.gpu.major = c.opts.FreeAlgorithm, c.large, c.major
		}, 7, 9, 7)
		if b.Name() != c.backend {
			t.Errorf("%+v: the name is %s, not %s", c.opts, b.Name(), c.backend)
		}
		if got := fmt.Sprint(b.cublas.queries); got != c.asked {
			t.Errorf("%+v: cuBLAS is asked for %s rows, not %s", c.opts, got, c.asked)
		}
		if c.opts.FreeAlgorithm && len(b.cublas.checks) > 0 {
			t.Errorf("a free algorithm is checked for %v rows", b.cublas.checks)
		}
		taken := slices.DeleteFunc(b.report(), func(r ProductReport) bool { return r.Algorithm == "" })
		for _, r := range taken {
			if !strings.Contains(r.String(), c.answered) {
				t.Errorf("%+v: %s", c.opts, r)
			}
		}
		if len(taken) != 3 {
			t.Errorf("%+v: cuBLAS takes %d shapes", c.opts, len(taken))
		}
	}
	opts, f := Options{Tile: -1, FreeAlgorithm: true}, newFake(t)
	if b, err := open(f.driver(), 0, opts, f.images(), noCublas); err == nil {
		t.Errorf("%+v is accepted", opts)
		b.Close()
	}
}
