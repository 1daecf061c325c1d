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
	"seqembed/kernels/ref"
)

// tensor is a Source in memory.
type tensor struct {
	shape  []int
	values []float32
}

func (m tensor) Shape() []int { return m.shape }

func (m tensor) ReadRows(dst []float32, first int) error {
	copy(dst, m.values[first*m.shape[len(m.shape)-1]:])
	return nil
}

func randomTensor(seed uint64, spread float64, shape ...int) tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64() * spread)
	}
	return tensor{shape, values}
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

const (
	testHeads = 2
	testDim   = 16
	testWidth = testHeads * testDim
)

// block runs something like a layer of each model: every operation, every mix
// of kinds that the models use, and two reads of buffers that are written
// again. It returns what was read.
func block(t *testing.T, b kernels.Backend, batch kernels.Batch, limits kernels.Limits) [][]float32 {
	t.Helper()
	load := func(role kernels.Role, seed uint64, spread float64, shape ...int) kernels.Weight {
		w, err := b.Load(role, randomTensor(seed, spread, shape...))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	const both = kernels.Residual | kernels.Operand
	s, err := b.NewStream(limits)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := testWidth
	x, y, sum := s.Tokens(h, kernels.Residual), s.Tokens(h, both), s.Tokens(h, kernels.Residual)
	wide := s.Tokens(4*h, kernels.Operand)
	qkv, hidden := s.Reuse(wide, 3*h), s.Reuse(wide, 3*h)
	context, pooled := s.Tokens(h, kernels.Operand), s.Sequences(h)
	table, gain, bias := load(kernels.Lookup, 1, 1, 11, h), load(kernels.Vector, 2, 1, h), load(kernels.Vector, 3, 1, h)
	invFreq := make([]float32, testDim/2)
	for j := range invFreq {
		invFreq[j] = float32(math.Pow(10000, -2*float64(j)/testDim))
	}

	rows := len(batch.IDs)
	reads := [][]float32{make([]float32, batch.Sequences()*h), make([]float32, rows*h), make([]float32, batch.Sequences()*h), make([]float32, rows*h)}
	s.Begin(batch)
	s.Embed(kernels.Embed{Out: x, Table: table, Type: bias, Scale: 0.88, Mask: 3})
	s.Pool(kernels.Pool{Out: pooled, In: x})
	s.Read(reads[0], pooled)
	s.Norm(kernels.Norm{Out: y, In: x, Gain: gain, Bias: bias, Eps: 1e-5})
	s.Linear(kernels.Linear{Out: qkv, In: y, W: load(kernels.Projection, 4, 0.2, 3*h, h), Bias: load(kernels.Vector, 5, 0.1, 3*h)})
	s.Attention(kernels.Attention{Out: context, QKV: qkv, Heads: testHeads, Scale: 1, Slopes: []float32{0.5, 0.25},
		Rotary: &kernels.Rotary{QScale: 0.25, InvFreq: invFreq}})
	s.Linear(kernels.Linear{Out: sum, In: context, W: load(kernels.Projection, 6, 0.2, h, h), Bias: bias, Add: x})
	s.Read(reads[1], sum)
	s.Linear(kernels.Linear{Out: hidden, In: y, W: load(kernels.Projection, 7, 0.2, 3*h, h), Bias: load(kernels.Vector, 8, 0.1, 3*h), Then: kernels.GELU})
	s.Linear(kernels.Linear{Out: sum, In: hidden, W: load(kernels.Projection, 9, 0.1, h, 3*h), Bias: bias, Add: sum})
	s.Norm(kernels.Norm{Out: y, In: sum, Add: x, Gain: gain, Bias: bias, Eps: 1e-12})
	s.Linear(kernels.Linear{Out: hidden, In: y, W: load(kernels.Projection, 10, 0.2, 6*h, h), Then: kernels.GEGLU})
	s.Linear(kernels.Linear{Out: y, In: hidden, W: load(kernels.Projection, 11, 0.1, h, 3*h)})
	s.Pool(kernels.Pool{Out: pooled, In: y, Limit: 2})
	s.Read(reads[2], pooled)
	s.Read(reads[3], y)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	return reads
}

func distance(a, b []float32) float64 {
	diff, norm := 0.0, 0.0
	for i := range a {
		diff += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		norm += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(diff / norm)
}

// TestBlockInEveryType compares a block with the reference. The bound is a
// chain of about ten roundings of the type; a wrong buffer gives about 1.
func TestBlockInEveryType(t *testing.T) {
	batch := batchOf(70, 1, 129, 3, 64)
	limits := kernels.Limits{Tokens: len(batch.IDs) + 9, Sequences: 7}
	want := block(t, ref.New(), batch, limits)
	for dtype, bound := range map[DType]float64{FP32: 1e-5, FP16: 1e-2, BF16: 6e-2} {
		var names [2][]string
		for seed := range uint64(4) {
			for i, own := range []bool{true, false} {
				f := newFake(t)
				if seed > 0 {
					f.eagerness = rand.New(rand.NewPCG(seed, 2))
				}
				find := noCublas
				if !own {
					find = newFakeCublas(f).find
				}
				b := openFake(t, f, dtype, find)
				got := block(t, b, batch, limits)
				for r := range want {
					if e := distance(got[r], want[r]); !(e < bound) {
						t.Errorf("%s, own products %t, seed %d: read %d errs by %g", dtype, own, seed, r, e)
					}
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				f.settled()
				names[i] = f.launched
			}
		}
		own := strings.Join(names[0], " ")
		for _, fused := range []string{"gemm_gelu_" + dtype.String(), "gemm_geglu_" + dtype.String()} {
			if !strings.Contains(own, fused) {
				t.Errorf("%s: no %s among %s", dtype, fused, own)
			}
		}
		for _, list := range names {
			if !slices.Contains(list, "attention_rotary_16_"+dtype.String()) {
				t.Errorf("%s: no attention that rotates among %v", dtype, list)
			}
		}
		if with := strings.Join(names[1], " "); strings.Contains(with, "gemm") || !strings.Contains(with, "activate_"+dtype.String()) {
			t.Errorf("%s: with cuBLAS the launches are %s", dtype, with)
		}
	}
}

// TestResultsDoNotDependOnBatchOrLimits packs a sequence with others and
// alone: the bits are the same.
func TestResultsDoNotDependOnBatchOrLimits(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, BF16, newFakeCublas(f).find)
	defer b.Close()
	together := block(t, b, batchOf(33, 130, 5), kernels.Limits{Tokens: 400, Sequences: 3})
	alone := block(t, b, batchOf(33), kernels.Limits{Tokens: 33, Sequences: 1})
	for i, cols := range []int{testWidth, 33 * testWidth, testWidth, 33 * testWidth} {
		if !slices.Equal(together[i][:cols], alone[i]) {
			t.Errorf("read %d differs", i)
		}
	}
}

// TestLongSequencesExtendTheRotations meets sequences of growing length.
func TestLongSequencesExtendTheRotations(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, FP32, noCublas)
	defer b.Close()
	limits := kernels.Limits{Tokens: 2100, Sequences: 2}
	s, err := b.NewStream(limits)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := ref.New().NewStream(limits)
	if err != nil {
		t.Fatal(err)
	}
	rotary := &kernels.Rotary{QScale: 1, InvFreq: []float32{1, 0.5, 0.2, 0.1, 0.05, 0.01, 0.005, 0.001}}
	for _, n := range []int{3, 1030, 1500, 2100} {
		var reads [2][]float32
		for i, stream := range []kernels.Stream{s, r} {
			qkv, out := stream.Tokens(48, kernels.Operand), stream.Tokens(16, kernels.Operand)
			reads[i] = make([]float32, n*16)
			stream.Begin(batchOf(n))
			stream.Write(qkv, randomTensor(uint64(n), 1, n*48).values)
			stream.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: 1, Scale: 1, Rotary: rotary})
			stream.Read(reads[i], out)
			if err := stream.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if e := distance(reads[0], reads[1]); !(e < 1e-6) {
			t.Errorf("%d positions: errs by %g", n, e)
		}
	}
}

// TestNoLaunchAfterAnError fails one call after another; the first failure is
// what Wait says, and nothing is launched after it.
func TestNoLaunchAfterAnError(t *testing.T) {
	for _, c := range []struct{ call, op string }{{"launch", "batch"}, {"upload", "batch"}, {"cuFuncSetAttribute", "linear"}, {"download", "read"}, {"cuEventSynchronize", "wait"}} {
		f := newFake(t)
		b := openFake(t, f, BF16, noCublas)
		s, err := b.NewStream(kernels.Limits{Tokens: 8, Sequences: 2})
		if err != nil {
			t.Fatal(err)
		}
		w, err := b.Load(kernels.Projection, randomTensor(1, 1, 8, 8))
		if err != nil {
			t.Fatal(err)
		}
		x, y := s.Tokens(8, kernels.Operand), s.Tokens(8, kernels.Operand)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		run := func() error {
			s.Begin(batchOf(3, 2))
			s.Linear(kernels.Linear{Out: y, In: x, W: w, Then: kernels.GELU})
			s.Read(make([]float32, 5*8), y)
			return s.Wait()
		}
		f.fails[c.call] = 700
		before := len(f.calls)
		err = run()
		var op *kernels.OpError
		var cuda *Error
		if !errors.As(err, &op) || op.Op != c.op || !errors.As(err, &cuda) || cuda.Code != 700 || strings.Contains(err.Error(), "\n") {
			t.Errorf("a failing %s gives %v", c.call, err)
		}
		if c.call == "launch" && strings.Count(strings.Join(f.calls[before:], " "), "launch") != 1 {
			t.Errorf("calls after a failed launch: %v", f.calls[before:])
		}
		delete(f.fails, c.call)
		if err := run(); err != nil {
			t.Errorf("after a failing %s was reported the stream still says %v", c.call, err)
		}
		if err := errors.Join(s.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		f.settled()
	}
}

// TestOutOfMemory fills a small device in every place that allocates.
func TestOutOfMemory(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, BF16, noCublas)
	w, err := b.Load(kernels.Projection, randomTensor(1, 1, 64, 64))
	if err != nil {
		t.Fatal(err)
	}
	before := f.free
	f.free = 10_000
	if _, err := b.Load(kernels.Projection, randomTensor(1, 1, 128, 64)); !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("loading gives %v", err)
	}
	if _, err := b.NewStream(kernels.Limits{Tokens: 5000, Sequences: 10}); !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("a stream gives %v", err)
	}
	s, err := b.NewStream(kernels.Limits{Tokens: 20, Sequences: 2})
	if err != nil {
		t.Fatal(err)
	}
	s.Tokens(64, kernels.Operand)
	large := s.Tokens(1000, kernels.Operand)
	var op *kernels.OpError
	if err := s.Wait(); !errors.Is(err, kernels.ErrOutOfMemory) || !errors.As(err, &op) || op.Op != "allocate" {
		t.Errorf("an activation gives %v", err)
	}
	if large.Cols() != 1000 {
		t.Error("a buffer that was not allocated has no columns")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	f.free += before - 10_000
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, cols := w.Dims(); cols != 64 {
		t.Error("dims")
	}
	f.settled()
}

// TestCopiesAreOrderedByEvents looks at the calls of a batch: the ids go up
// after the batch before and ahead of the first launch, and a buffer that is
// being read is written again only after the copy.
func TestCopiesAreOrderedByEvents(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, FP32, noCublas)
	defer b.Close()
	s, err := b.NewStream(kernels.Limits{Tokens: 8, Sequences: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x := s.Tokens(8, kernels.Residual)
	gain, err := b.Load(kernels.Vector, randomTensor(1, 1, 8))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	f.calls = nil
	norm := kernels.Norm{Out: x, In: x, Gain: gain, Bias: gain, Eps: 1}
	s.Begin(batchOf(3, 2))
	s.Norm(norm)
	s.Read(make([]float32, 5*8), x)
	s.Norm(norm)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	calls := strings.Join(slices.DeleteFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "cu") }), " ")
	want := "record wait upload upload upload record wait launch launch record wait download record wait launch record record"
	if calls != want {
		t.Errorf("the calls are\n%s\nand not\n%s", calls, want)
	}
}

// TestBudgetFollowsTheFormula holds Budget to what streams really allocate.
func TestBudgetFollowsTheFormula(t *testing.T) {
	for _, dtype := range []DType{BF16, FP32} {
		f := newFake(t)
		b := openFake(t, f, dtype, noCublas)
		used := func(tokens int) uint64 {
			before := f.free
			s, err := b.NewStream(kernels.Limits{Tokens: tokens, Sequences: tokens})
			if err != nil {
				t.Fatal(err)
			}
			s.Tokens(64, kernels.Residual)
			s.Tokens(192, kernels.Operand)
			if err := s.Wait(); err != nil {
				t.Fatal(err)
			}
			during := before - f.free
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return during
		}
		perToken := float64(used(20_000)-used(10_000)) / 10_000
		if stated := float64(b.BytesPerToken(64, 192, 1000)); perToken > stated || perToken < 0.95*stated {
			t.Errorf("%s: a token takes %g bytes, and the formula says %g", dtype, perToken, stated)
		}
		free := f.free
		for _, c := range []struct {
			free uint64
			want int
		}{{100 << 30, budgetCap}, {1 << 30, int((0.9*(1<<30) - budgetReserve) / float64(b.BytesPerToken(64_000, 0, 1000)))}} {
			f.free = c.free
			if got, err := b.Budget(64_000, 0, 1000); err != nil || got != c.want {
				t.Errorf("%s: a budget of %d, not %d, for %d bytes: %v", dtype, got, c.want, c.free, err)
			}
		}
		f.free = 1 << 20
		if _, err := b.Budget(64, 64, 0); !errors.Is(err, kernels.ErrOutOfMemory) {
			t.Errorf("a full device gives %v", err)
		}
		f.free = free
		b.Close()
	}
}

// TestWeightsArriveAsTheyWere loads matrices that take several pieces and
// reads the device's memory.
func TestWeightsArriveAsTheyWere(t *testing.T) {
	for _, dtype := range []DType{BF16, FP16, FP32} {
		f := newFake(t)
		f.eagerness = rand.New(rand.NewPCG(1, 3))
		b := openFake(t, f, dtype, noCublas)
		err := b.device.thread.call(func() (err error) { b.staging, err = newStaging(b.device, 10_000); return err })
		if err != nil {
			t.Fatal(err)
		}
		one, two := randomTensor(1, 1, 301, 29), randomTensor(2, 1, 200, 29)
		loaded, err := b.Load(kernels.Projection, one, two)
		if err != nil {
			t.Fatal(err)
		}
		w := loaded.(*weight)
		all := append(slices.Clone(one.values), two.values...)
		m := f.matrix(uint64(w.at), 501, 29, 32, dtype)
		rounded, raw := make([]float32, 29), make([]byte, 4*29)
		for r := range 501 {
			dtype.encode(raw, all[r*29:(r+1)*29])
			dtype.decode(rounded, raw)
			if got := m.row(r); !slices.Equal(got, rounded) {
				t.Fatalf("%s: row %d is not what was loaded", dtype, r)
			}
		}
		if _, err := b.Load(kernels.Projection, randomTensor(3, 1, 2, 6000)); err == nil {
			t.Errorf("%s: a row larger than a piece was loaded", dtype)
		}
		joined, err := b.Load(kernels.Vector, tensor{[]int{2}, []float32{1, 2}}, tensor{[]int{3}, []float32{3, 4, 1 + 0x1p-20}})
		if err != nil {
			t.Fatal(err)
		}
		v := joined.(*weight)
		if got := f.matrix(uint64(v.at), 1, 5, 5, FP32).row(0); !slices.Equal(got, []float32{1, 2, 3, 4, 1 + 0x1p-20}) {
			t.Errorf("%s: a vector arrives as %v", dtype, got)
		}
		if got := f.matrix(uint64(v.copied), 1, 5, 5, dtype).row(0); !slices.Equal(got[:4], []float32{1, 2, 3, 4}) {
			t.Errorf("%s: its copy arrives as %v", dtype, got)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		f.settled()
	}
}

// TestAlgorithmIsFixedPerShape asks for several numbers of rows: there are two
// queries, at fixed numbers, and a check for each number of rows.
func TestAlgorithmIsFixedPerShape(t *testing.T) {
	f := newFake(t)
	c := newFakeCublas(f)
	c.refused = func(rows int) bool { return rows == 5 }
	b := openFake(t, f, BF16, c.find)
	defer b.Close()
	s, err := b.NewStream(kernels.Limits{Tokens: 100, Sequences: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := b.Load(kernels.Projection, randomTensor(1, 1, 16, 8))
	if err != nil {
		t.Fatal(err)
	}
	x, y := s.Tokens(8, kernels.Operand), s.Tokens(16, kernels.Operand)
	for _, n := range []int{7, 5, 7} {
		s.Begin(batchOf(n))
		s.Linear(kernels.Linear{Out: y, In: x, W: w})
		s.Linear(kernels.Linear{Out: y, In: x, W: w})
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(c.queries, c.checks, c.runs); got != "[4096 32768] [7 5 7] 4" {
		t.Errorf("queries, checks and runs are %s", got)
	}
	if !slices.Contains(f.launched, "gemm_bf16") {
		t.Error("five rows, which cuBLAS refuses, were not multiplied by the package's own kernel")
	}
	c.none = true
	wide := s.Tokens(16, kernels.Residual)
	s.Begin(batchOf(7))
	s.Linear(kernels.Linear{Out: wide, In: x, W: w})
	if err := s.Wait(); err != nil || c.runs != 4 {
		t.Errorf("a shape without an algorithm in one piece ran on cuBLAS: %v", err)
	}
}
