package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
	"seqembed/kernels/kernelstest"
	"seqembed/kernels/ref"
)

func randomTensor(seed uint64, spread float64, shape ...int) kernelstest.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64() * spread)
	}
	return kernelstest.Tensor{Dims: shape, Values: values}
}

func batchOf(lengths ...int) kernels.Batch {
	var b kernels.Batch
	for i, n := range lengths {
		ids := make([]int32, n)
		for k := range ids {
			ids[k] = int32((7*k + i) % 11)
		}
		b.Append(ids)
	}
	return b
}

// net is a program under construction, with weights on a backend.
type net struct {
	*kernels.Program
	t     *testing.T
	model kernels.Model
}

func newNet(t *testing.T, b kernels.Backend) *net {
	return &net{new(kernels.Program), t, b.NewModel()}
}

func (n *net) load(role kernels.Role, seed uint64, spread float64, shape ...int) kernels.Weight {
	n.t.Helper()
	return n.give(role, randomTensor(seed, spread, shape...))
}

func (n *net) give(role kernels.Role, parts ...kernels.Source) kernels.Weight {
	n.t.Helper()
	w, err := n.model.Load(role, parts...)
	if err != nil {
		n.t.Fatal(err)
	}
	return w
}

// input returns a value with the given rows. The program must then run on a batch of rowsOf.
func (n *net) input(cols int, values []float32) kernels.Value {
	n.t.Helper()
	table := n.give(kernels.Lookup, kernelstest.Tensor{Dims: []int{len(values) / cols, cols}, Values: values})
	return n.Embed(kernels.Embed{Table: table, Scale: 1, Mask: kernels.NoMask})
}

// tokens returns a value of random rows. The program must then run on a batch of batchOf.
func (n *net) tokens(cols int) kernels.Value {
	n.t.Helper()
	return n.Embed(kernels.Embed{Table: n.load(kernels.Lookup, 1, 1, 11, cols), Scale: 1, Mask: kernels.NoMask})
}

func (n *net) linear(x kernels.Value, seed uint64, out int) kernels.Value {
	n.t.Helper()
	return n.Linear(x, kernels.Linear{W: n.load(kernels.Projection, seed, 0.2, out, n.Cols(x))}, kernels.None)
}

func (n *net) norm(x kernels.Value) kernels.Value {
	n.t.Helper()
	gain := n.load(kernels.Vector, 2, 1, n.Cols(x))
	return n.Norm(x, kernels.Norm{Gain: gain, Bias: gain, Eps: 1e-5})
}

func (n *net) compile(b kernels.Backend, l kernels.Limits) kernels.Runner {
	n.t.Helper()
	r, err := b.Compile(n.Program, l)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// start starts a batch. After wait has returned, dst contains the results.
func (n *net) start(r kernels.Runner, b kernels.Batch) (dst [][]float32, wait func() error) {
	for _, v := range n.Outputs() {
		dst = append(dst, make([]float32, n.Rows(v, b)*n.Cols(v)))
	}
	return dst, r.Start(b, dst)
}

// run compiles the program, runs it on one batch and frees everything.
func (n *net) run(b kernels.Backend, batch kernels.Batch, l kernels.Limits) [][]float32 {
	n.t.Helper()
	r := n.compile(b, l)
	dst, wait := n.start(r, batch)
	if err := errors.Join(wait(), r.Close(), n.model.Close()); err != nil {
		n.t.Fatal(err)
	}
	return dst
}

func limitsOf(b kernels.Batch) kernels.Limits {
	return kernels.Limits{Tokens: len(b.IDs), Sequences: b.Sequences()}
}

// rowsOf returns a batch of sequences of the given lengths. Its token ids are the indices of the rows of an input (see
// net.input).
func rowsOf(lengths ...int) kernels.Batch {
	b := batchOf(lengths...)
	for i := range b.IDs {
		b.IDs[i] = int32(i)
	}
	return b
}

// frequencies returns the rotary frequencies of a head of d columns.
func frequencies(d int) []float32 {
	list := make([]float32, d/2)
	for j := range list {
		list[j] = float32(math.Pow(10000, -2*float64(j)/float64(d)))
	}
	return list
}

func distance(a, b []float32) float64 {
	diff, norm := 0.0, 0.0
	for i := range a {
		diff += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		norm += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(diff / norm)
}

// TestNoLaunchAfterAnError makes a launch, an upload, a download and the wait for an event fail in turn. The function
// wait must return the error, no kernel may be launched after a launch that failed, and the next batch must succeed.
func TestNoLaunchAfterAnError(t *testing.T) {
	for _, c := range []struct{ call, op string }{{"launch", "batch"}, {"upload", "batch"}, {"download", "output"}, {"cuEventSynchronize", "wait"}} {
		f := newFake(t)
		b := openFake(t, f, kernels.BF16, noCublas)
		n := newNet(t, b)
		n.Output(n.linear(n.tokens(8), 1, 8))
		r := n.compile(b, kernels.Limits{Tokens: 8, Sequences: 2})
		run := func() error {
			_, wait := n.start(r, batchOf(3, 2))
			return wait()
		}
		f.fails[c.call] = 700
		before := len(f.calls)
		err := run()
		var op *kernels.OpError
		var cuda *driver.Error
		if !errors.As(err, &op) || op.Op != c.op || !errors.As(err, &cuda) || cuda.Code != 700 || strings.Contains(err.Error(), "\n") {
			t.Errorf("a failing %s gives %v", c.call, err)
		}
		if c.call == "launch" && strings.Count(strings.Join(f.calls[before:], " "), "launch") != 1 {
			t.Errorf("calls after a failed launch: %v", f.calls[before:])
		}
		delete(f.fails, c.call)
		if err := run(); err != nil {
			t.Errorf("after a failing %s was reported the runner still says %v", c.call, err)
		}
		if err := errors.Join(r.Close(), n.model.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		f.checkFreed()
	}
}

// TestCompileFails makes driver calls in Compile fail, one at a time. If the call belongs to an operation, the error
// must name the operation. Everything must be freed.
func TestCompileFails(t *testing.T) {
	for call, op := range map[string]string{"cuFuncSetAttribute": "linear", "cuMemAlloc": "", "cuStreamCreate": "",
		"cuEventCreate": "", "upload": "attention", "cuMemAllocHost": "attention"} {
		f := newFake(t)
		b := openFake(t, f, kernels.BF16, noCublas)
		n := newNet(t, b)
		qkv := n.linear(n.tokens(16), 1, 48)
		n.Output(n.Attention(qkv, kernels.Attention{Heads: 1, Scale: 1, Slopes: []float32{0.5},
			Rotary: &kernels.Rotary{QScale: 1, InvFreq: frequencies(16)}}))
		f.fails[call] = 700
		_, err := b.Compile(n.Program, kernels.Limits{Tokens: 8, Sequences: 2})
		var named *kernels.OpError
		if err == nil || op != "" && (!errors.As(err, &named) || named.Op != op) {
			t.Errorf("a failing %s gives %v", call, err)
		}
		delete(f.fails, call)
		r := n.compile(b, kernels.Limits{Tokens: 8, Sequences: 2})
		if err := errors.Join(r.Close(), n.model.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		f.checkFreed()
	}
}

// TestUnsupported checks that Compile returns kernels.ErrUnsupported for operations without a kernel.
func TestUnsupported(t *testing.T) {
	f := newFake(t)
	for products, find := range map[string]findCublas{"own products": noCublas, "cuBLAS": newFakeCublas(f).find} {
		b := openFake(t, f, kernels.BF16, find)
		for op, build := range map[string]func(n *net) kernels.Value{
			"attention": func(n *net) kernels.Value { return n.Attention(n.tokens(3*40), kernels.Attention{Heads: 1, Scale: 1}) },
			"norm":      func(n *net) kernels.Value { return n.norm(n.tokens(normWidths[len(normWidths)-1] + 1)) },
			"linear": func(n *net) kernels.Value {
				y := n.linear(n.tokens(16), 2, 32)
				last := &n.Ops()[len(n.Ops())-1]
				unknown := last.Do.(kernels.Linear)
				unknown.Then = kernels.Activation(255) // Program.Linear does not accept it
				last.Do = unknown
				return y
			},
		} {
			n := newNet(t, b)
			n.Output(build(n))
			var refused *kernels.OpError
			_, err := b.Compile(n.Program, kernels.Limits{Tokens: 8, Sequences: 2})
			if !errors.As(err, &refused) || refused.Op != op || !errors.Is(err, kernels.ErrUnsupported) {
				t.Errorf("%s, %s: %v", products, op, err)
			}
			n.model.Close()
		}
		b.Close()
	}
}

// TestWeightsOfAnother checks that Compile refuses weights that were loaded on another device or backend, in every
// operation that has weights.
func TestWeightsOfAnother(t *testing.T) {
	b := openFake(t, newFake(t), kernels.BF16, noCublas)
	defer b.Close()
	device := openFake(t, newFake(t), kernels.BF16, noCublas)
	defer device.Close()
	for name, other := range map[string]kernels.Backend{"device": device, "backend": ref.New()} {
		for op, build := range map[string]func(own, foreign *net) kernels.Value{
			"embed": func(_, foreign *net) kernels.Value { return foreign.tokens(16) },
			"linear": func(own, foreign *net) kernels.Value {
				return own.Linear(own.tokens(16), kernels.Linear{W: foreign.load(kernels.Projection, 1, 1, 16, 16)}, kernels.None)
			},
			"norm": func(own, foreign *net) kernels.Value {
				gain := own.load(kernels.Vector, 2, 1, 16)
				return own.Norm(own.tokens(16), kernels.Norm{Gain: gain, Bias: foreign.load(kernels.Vector, 2, 1, 16), Eps: 1e-5})
			},
		} {
			own := newNet(t, b)
			foreign := &net{own.Program, t, other.NewModel()}
			own.Output(build(own, foreign))
			var refused *kernels.OpError
			_, err := b.Compile(own.Program, kernels.Limits{Tokens: 8, Sequences: 2})
			if !errors.Is(err, errForeignWeight) || !errors.As(err, &refused) || refused.Op != op {
				t.Errorf("%s with a weight of another %s gives %v", op, name, err)
			}
			own.model.Close()
			foreign.model.Close()
		}
	}
}

// TestOutOfMemory checks that Load and Compile return kernels.ErrOutOfMemory on a device with little memory, and that
// everything is freed afterwards.
func TestOutOfMemory(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.BF16, noCublas)
	n := newNet(t, b)
	n.Output(n.linear(n.tokens(64), 1, 1000))
	before := f.free
	f.free = 10_000
	if _, err := n.model.Load(kernels.Projection, randomTensor(1, 1, 128, 64)); !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("loading gives %v", err)
	}
	for _, tokens := range []int{5000, 20} {
		if _, err := b.Compile(n.Program, kernels.Limits{Tokens: tokens, Sequences: 2}); !errors.Is(err, kernels.ErrOutOfMemory) {
			t.Errorf("compiling for %d tokens gives %v", tokens, err)
		}
	}
	f.free += before - 10_000
	if err := errors.Join(n.model.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	f.checkFreed()
}

// TestCopiesAreOrderedByEvents checks that the calls of a batch have the right order. The ids must be uploaded before
// the first launch, and after the previous batch has stopped using their buffer. Memory that is being downloaded may be
// overwritten only after the copy.
func TestCopiesAreOrderedByEvents(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.FP32, noCublas)
	defer b.Close()
	n := newNet(t, b)
	x := n.norm(n.tokens(8))
	n.Output(x)
	n.Output(n.norm(x))
	r := n.compile(b, kernels.Limits{Tokens: 8, Sequences: 2})
	f.calls = nil
	if _, wait := n.start(r, batchOf(3, 2)); wait() != nil {
		t.Fatal("it fails")
	}
	calls := strings.Join(slices.DeleteFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "cu") }), " ")
	// The first four launches are positions, embed_scale, embed and layernorm.
	want := "record wait upload upload upload record wait launch launch launch launch " +
		"record wait download record wait launch record wait download record record record"
	if calls != want {
		t.Errorf("the calls are\n%s\nand not\n%s", calls, want)
	}
	if err := errors.Join(r.Close(), n.model.Close()); err != nil {
		t.Error(err)
	}
}

// TestBudgetFollowsTheFormula checks that runners allocate about as much memory for each token as BytesPerToken says,
// and that Budget follows from it and from the free memory.
func TestBudgetFollowsTheFormula(t *testing.T) {
	for _, dtype := range []kernels.DType{kernels.BF16, kernels.FP32} {
		for _, cublas := range []bool{false, true} {
			f := newFake(t)
			find := noCublas
			if cublas {
				find = newFakeCublas(f).find
			}
			b := openFake(t, f, dtype, find)
			n := newNet(t, b)
			x := n.norm(n.tokens(64))
			context := n.Attention(n.linear(x, 1, 192), kernels.Attention{Heads: 1, Scale: 1,
				Rotary: &kernels.Rotary{QScale: 1, InvFreq: frequencies(64)}})
			gated := n.Linear(n.linear(context, 2, 64), kernels.Linear{W: n.load(kernels.Projection, 3, 1, 512, 64), Then: kernels.GEGLU}, kernels.None)
			n.Output(n.Pool(n.linear(gated, 4, 64), kernels.Range{}))
			used := func(tokens int) uint64 {
				before := f.free
				r := n.compile(b, kernels.Limits{Tokens: tokens, Sequences: tokens/3 + 1})
				during := before - f.free
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				return during
			}
			perToken := float64(used(9_000)-used(6_000)) / 3_000
			if stated := float64(b.BytesPerToken(n.Program)); perToken > 1.03*stated || perToken < 0.95*stated {
				t.Errorf("%s, cuBLAS %t: a token takes %g bytes, and the formula says %g", dtype, cublas, perToken, stated)
			}
			free := f.free
			for _, c := range []struct {
				free uint64
				want int
			}{{100 << 30, budgetCap}, {120 << 20, int((0.9*(120<<20) - budgetReserve) / float64(b.BytesPerToken(n.Program)))}} {
				f.free = c.free
				if got, err := b.Budget(n.Program); err != nil || got != c.want {
					t.Errorf("%s: a budget of %d, not %d, for %d bytes: %v", dtype, got, c.want, c.free, err)
				}
			}
			f.free = 1 << 20
			if _, err := b.Budget(n.Program); !errors.Is(err, kernels.ErrOutOfMemory) {
				t.Errorf("a full device gives %v", err)
			}
			f.free = free
			if err := errors.Join(n.model.Close(), b.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestWeightsArriveAsTheyWere checks that weights that are larger than a staging buffer reach the device unchanged,
// apart from the rounding to the operands' type.
func TestWeightsArriveAsTheyWere(t *testing.T) {
	for _, dtype := range []kernels.DType{kernels.BF16, kernels.FP16, kernels.FP32} {
		f := newFake(t)
		f.eagerness = rand.New(rand.NewPCG(1, 3))
		b := openFake(t, f, dtype, noCublas)
		if err := b.do(func(c *gpu.Context) { b.staging.allocate(c, &b.resources, 10_000) }); err != nil {
			t.Fatal(err)
		}
		model := b.NewModel()
		one, two := randomTensor(1, 1, 301, 29), randomTensor(2, 1, 200, 29)
		loaded, err := model.Load(kernels.Projection, one, two)
		if err != nil {
			t.Fatal(err)
		}
		w := loaded.(*weight)
		all := append(slices.Clone(one.Values), two.Values...)
		m := f.matrix(uint64(w.at), 501, 29, 32, dtype)
		rounded, raw := make([]float32, 29), make([]byte, 4*29)
		for r := range 501 {
			encode(dtype, raw, all[r*29:(r+1)*29])
			decode(dtype, rounded, raw)
			if got := m.row(r); !slices.Equal(got, rounded) {
				t.Fatalf("%s: row %d is not what was loaded", dtype, r)
			}
		}
		if _, err := model.Load(kernels.Projection, randomTensor(3, 1, 2, 6000)); err == nil {
			t.Errorf("%s: a row larger than a piece was loaded", dtype)
		}
		joined, err := model.Load(kernels.Vector, kernelstest.Tensor{Dims: []int{2}, Values: []float32{1, 2}}, kernelstest.Tensor{Dims: []int{3}, Values: []float32{3, 4, 1 + 0x1p-20}})
		if err != nil {
			t.Fatal(err)
		}
		v := joined.(*weight)
		if got := f.matrix(uint64(v.at), 1, 5, 5, kernels.FP32).row(0); !slices.Equal(got, []float32{1, 2, 3, 4, 1 + 0x1p-20}) {
			t.Errorf("%s: a vector arrives as %v", dtype, got)
		}
		if got := f.matrix(uint64(v.copied), 1, 5, 5, dtype).row(0); !slices.Equal(got[:4], []float32{1, 2, 3, 4}) {
			t.Errorf("%s: its copy arrives as %v", dtype, got)
		}
		if err := errors.Join(model.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		f.checkFreed()
	}
}

// TestPreferredAlgorithmIsChecked checks that the backend asks cuBLAS whether the algorithm with a tile of 128 by 128,
// which was offered for largeRows rows, supports the rows of a batch. It must ask even if the batch has heuristicRows
// rows, for which cuBLAS was asked first.
func TestPreferredAlgorithmIsChecked(t *testing.T) {
	f := newFake(t)
	c := newFakeCublas(f)
	c.large, c.refused = true, func(rows int) bool { return rows == heuristicRows }
	b := openFake(t, f, kernels.BF16, c.find)
	defer b.Close()
	n := newNet(t, b)
	n.Output(n.linear(n.tokens(16), 1, 16))
	r := n.compile(b, kernels.Limits{Tokens: heuristicRows, Sequences: 1})
	defer r.Close()
	if _, wait := n.start(r, batchOf(heuristicRows)); wait() != nil {
		t.Fatal("it fails")
	}
	if got := fmt.Sprint(c.checks, c.runs); got != "[4096] 0" {
		t.Errorf("checks and runs are %s", got)
	}
}

// TestAlgorithmIsFixedPerShape checks that cuBLAS is asked for algorithms only for two fixed numbers of rows, whatever
// the sizes of the batches. For each number of rows in a batch, the backend must check that the chosen algorithm
// supports it.
func TestAlgorithmIsFixedPerShape(t *testing.T) {
	f := newFake(t)
	c := newFakeCublas(f)
	c.refused = func(rows int) bool { return rows == 5 }
	b := openFake(t, f, kernels.BF16, c.find)
	defer b.Close()
	n := newNet(t, b)
	x := n.tokens(16)
	n.Output(n.linear(n.linear(n.linear(x, 1, 16), 2, 16), 3, 16))
	r := n.compile(b, kernels.Limits{Tokens: 100, Sequences: 2})
	// There are two shapes of products: with a result in the operands' type, and with one in float32.
	if got := fmt.Sprint(c.queries, c.checks, c.runs); got != "[4096 32768 4096 32768] [] 0" {
		t.Errorf("after Compile queries, checks and runs are %s", got)
	}
	for _, rows := range []int{7, 5, 7} {
		if _, wait := n.start(r, batchOf(rows)); wait() != nil {
			t.Fatal("it fails")
		}
	}
	if got := fmt.Sprint(c.queries, c.checks, c.runs); got != "[4096 32768 4096 32768] [7 7 5 5 7 7] 6" {
		t.Errorf("queries, checks and runs are %s", got)
	}
	if !slices.Contains(f.launched, "gemm_bf16") {
		t.Error("five rows, which cuBLAS refuses, were not multiplied by the package's own kernel")
	}
	r.Close()
	c.none = true
	other := newNet(t, b)
	other.Output(other.linear(other.tokens(16), 1, 24))
	other.run(b, batchOf(7), kernels.Limits{Tokens: 7, Sequences: 1})
	if c.runs != 6 {
		t.Error("a shape without an algorithm in one piece ran on cuBLAS")
	}
	n.model.Close()
}
