package hostsim_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// A job is one kernel of each operand type: it makes weights and inputs,
// launches, and returns the output. Fused products go through fused. Where
// there is parts, it gives the same bits by kernels that were not fused.
type job struct {
	name  string
	lens  []int
	run   func(b *bench) kernels.Buffer
	parts func(b *bench) kernels.Buffer
}

// bench is a stream with a batch begun, and draws that are the same on every
// backend: values of the operand type, so that no backend rounds them.
type bench struct {
	t       *testing.T
	backend kernels.Backend
	kernels.Stream
	lens, tags []int
	round      func(float32) float32
	draws      uint64
}

type matrix struct {
	shape  []int
	values []float32
}

func (m matrix) Shape() []int { return m.shape }
func (m matrix) ReadRows(dst []float32, first int) error {
	copy(dst, m.values[first*m.shape[len(m.shape)-1]:])
	return nil
}

func (b *bench) normal(n int, spread float64) []float32 {
	b.draws++
	return draw(b.draws, n, spread, b.round)
}

func draw(seed uint64, n int, spread float64, round func(float32) float32) []float32 {
	rng := rand.New(rand.NewPCG(seed, 5))
	values := make([]float32, n)
	for i := range values {
		values[i] = round(float32(rng.NormFloat64() * spread))
	}
	return values
}

func (b *bench) load(role kernels.Role, shape ...int) kernels.Weight {
	spread, n := 1.0, 1
	for _, d := range shape {
		n *= d
	}
	if role == kernels.Projection {
		spread = 1 / math.Sqrt(float64(shape[1]))
	}
	w, err := b.backend.Load(role, matrix{shape, b.normal(n, spread)})
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

// filled is an activation whose rows depend on their sequence's tag.
func (b *bench) filled(cols int, k kernels.Kind) kernels.Buffer {
	f := b.Tokens(cols, k)
	b.Write(f, b.values(cols, b.round))
	return f
}

func (b *bench) values(cols int, round func(float32) float32) []float32 {
	b.draws++
	var rows []float32
	for i, n := range b.lens {
		rows = append(rows, draw(b.draws<<16|uint64(b.tags[i]), n*cols, 1, round)...)
	}
	return rows
}

// fused is GELU(In·Wᵀ + Bias) + Add, or a GEGLU where the weight has twice the
// columns of the output: one launch in the simulation, operations of their own
// for the reference, which adds by a product with the identity.
func (b *bench) fused(o kernels.Linear) {
	rows, _ := o.W.Dims()
	gated := rows == 2*o.Out.Cols()
	if _, ok := b.Stream.(*stream); !ok && o.Add != nil {
		n := o.Out.Cols()
		identity := matrix{[]int{n, n}, make([]float32, n*n)}
		for i := range n {
			identity.values[i*n+i] = 1
		}
		w, err := b.backend.Load(kernels.Projection, identity)
		if err != nil {
			b.t.Fatal(err)
		}
		sum := kernels.Linear{Out: o.Out, In: b.Tokens(n, both), W: w, Add: o.Add}
		o.Out, o.Add = sum.In, nil
		b.fused(o)
		b.Linear(sum)
		return
	}
	if s, ok := b.Stream.(*stream); ok {
		kernel := "gemm_gelu"
		if gated {
			kernel = "gemm_geglu"
		}
		s.linear(kernel, o)
		return
	}
	if !gated {
		b.Linear(o)
		b.Activate(kernels.Activate{X: o.Out})
		return
	}
	out := o.Out
	o.Out = b.Tokens(rows, kernels.Operand)
	b.Linear(o)
	b.Gate(kernels.Gate{Out: out, In: o.Out})
}

const both = kernels.Residual | kernels.Operand

// mixed has sequences on both sides of the tiles of 64 and 128 rows.
var mixed = []int{65, 1, 129, 31, 2, 64, 33}

func jobs() []job {
	list := []job{
		{name: "embed", lens: mixed, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(36, kernels.Operand)
			b.Embed(kernels.Embed{Out: out, Table: b.load(kernels.Lookup, 9, 36), Type: b.load(kernels.Vector, 36), Scale: 0.88, Mask: 4})
			return out
		}},
		{name: "norm/operand", lens: mixed, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(100, kernels.Operand)
			b.Norm(kernels.Norm{Out: out, In: b.filled(100, kernels.Residual), Gain: b.load(kernels.Vector, 100), Bias: b.load(kernels.Vector, 100), Eps: 1e-5})
			return out
		}},
		{name: "norm/wide", lens: []int{2, 3}, run: func(b *bench) kernels.Buffer {
			x := b.filled(2562, both)
			b.Norm(kernels.Norm{Out: x, In: x, Add: b.filled(2562, kernels.Residual), Gain: b.load(kernels.Vector, 2562), Bias: b.load(kernels.Vector, 2562), Eps: 1e-12})
			return x
		}},
		{name: "activate", lens: mixed, run: func(b *bench) kernels.Buffer {
			x := b.filled(1030, kernels.Operand)
			b.Activate(kernels.Activate{X: x})
			return x
		}},
		{name: "linear/residual", lens: mixed, run: func(b *bench) kernels.Buffer {
			in, x := b.filled(140, kernels.Operand), b.filled(71, kernels.Residual)
			b.Linear(kernels.Linear{Out: x, In: in, W: b.load(kernels.Projection, 71, 140), Bias: b.load(kernels.Vector, 71), Add: x})
			return x
		}},
		{name: "linear, pool", lens: mixed, run: func(b *bench) kernels.Buffer {
			in, x, out := b.filled(24, kernels.Operand), b.Tokens(40, both), b.Sequences(40)
			b.Linear(kernels.Linear{Out: x, In: in, W: b.load(kernels.Projection, 40, 24)})
			b.Pool(kernels.Pool{Out: out, In: x})
			return out
		}},
	}
	for _, cols := range []int{48, 50} {
		list = append(list, job{name: fmt.Sprintf("gate/%d", cols), lens: mixed, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(cols, kernels.Operand)
			b.Gate(kernels.Gate{Out: out, In: b.filled(2*cols, kernels.Operand)})
			return out
		}})
	}
	for _, shape := range [][2]int{{16, 16}, {17, 33}, {136, 64}, {320, 200}, {48, 530}} {
		out, in := shape[0], shape[1]
		lens := mixed
		if out*in > 40_000 {
			lens = []int{1, 65, 97}
		}
		list = append(list,
			job{name: fmt.Sprintf("linear/%dx%d", out, in), lens: lens, run: func(b *bench) kernels.Buffer {
				x := b.Tokens(out, kernels.Operand)
				b.Linear(kernels.Linear{Out: x, In: b.filled(in, kernels.Operand), W: b.load(kernels.Projection, out, in), Bias: b.load(kernels.Vector, out)})
				return x
			}},
			job{name: fmt.Sprintf("gelu/%dx%d", out, in), lens: lens, run: func(b *bench) kernels.Buffer {
				x := b.Tokens(out, kernels.Operand)
				b.fused(kernels.Linear{Out: x, In: b.filled(in, kernels.Operand), W: b.load(kernels.Projection, out, in), Bias: b.load(kernels.Vector, out)})
				return x
			}},
			job{name: fmt.Sprintf("geglu/%dx%d", out, in), lens: lens, run: func(b *bench) kernels.Buffer {
				x := b.Tokens(out, kernels.Operand)
				b.fused(kernels.Linear{Out: x, In: b.filled(in, kernels.Operand), W: b.load(kernels.Projection, 2*out, in), Bias: b.load(kernels.Vector, 2*out)})
				return x
			}})
	}
	for _, shape := range [][3]int{{17, 17, 33}, {17, 34, 33}, {136, 136, 64}, {136, 272, 64}} {
		cols, out, in := shape[0], shape[1], shape[2]
		list = append(list, job{name: fmt.Sprintf("%dx%d, activation, add", out, in), lens: mixed, run: func(b *bench) kernels.Buffer {
			x := b.filled(cols, both)
			b.fused(kernels.Linear{Out: x, In: b.filled(in, kernels.Operand), W: b.load(kernels.Projection, out, in), Bias: b.load(kernels.Vector, out), Add: x})
			return x
		}})
	}
	for _, cols := range []int{5, 300} {
		list = append(list,
			job{name: fmt.Sprintf("narrow/%d", cols), lens: mixed, run: narrowed(cols, true), parts: narrowed(cols, false)},
			job{name: fmt.Sprintf("widen/%d", cols), lens: mixed, run: widened(cols, true), parts: widened(cols, false)})
	}
	for _, d := range []int{16, 24, 32, 64, 128} {
		const heads = 2
		invFreq := make([]float32, d/2)
		for j := range invFreq {
			invFreq[j] = float32(math.Pow(10000, -2*float64(j)/float64(d)))
		}
		scale := float32(1 / math.Sqrt(float64(d)))
		turned := func(fused bool) func(b *bench) kernels.Buffer {
			return func(b *bench) kernels.Buffer {
				qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
				r := kernels.Rotary{QKV: qkv, Heads: heads, QScale: scale, InvFreq: invFreq}
				o := kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: 1}
				if d == 32 {
					o.Slopes = []float32{0.5, 0.0625}
				}
				if s, ok := b.Stream.(*stream); ok && fused {
					s.turned(r, o)
				} else {
					b.Rotary(r)
					b.Attention(o)
				}
				return out
			}
		}
		list = append(list,
			job{name: fmt.Sprintf("rotary, attention/%d", d), lens: []int{65, 1, 130, 300}, run: turned(true), parts: turned(false)},
			job{name: fmt.Sprintf("attention/%d long", d), lens: []int{300}, run: func(b *bench) kernels.Buffer {
				out := b.Tokens(heads*d, kernels.Operand)
				b.Attention(kernels.Attention{Out: out, QKV: b.filled(3*heads*d, kernels.Operand), Heads: heads, Scale: scale})
				return out
			}},
			job{name: fmt.Sprintf("rotary/%d", d), lens: mixed, run: func(b *bench) kernels.Buffer {
				qkv := b.filled(3*heads*d, kernels.Operand)
				b.Rotary(kernels.Rotary{QKV: qkv, Heads: heads, QScale: scale, InvFreq: invFreq})
				return qkv
			}},
			job{name: fmt.Sprintf("attention/%d", d), lens: mixed, run: func(b *bench) kernels.Buffer {
				out := b.Tokens(heads*d, kernels.Operand)
				b.Attention(kernels.Attention{Out: out, QKV: b.filled(3*heads*d, kernels.Operand), Heads: heads, Scale: scale})
				return out
			}},
			job{name: fmt.Sprintf("alibi/%d", d), lens: []int{3, 140}, run: func(b *bench) kernels.Buffer {
				out := b.Tokens(heads*d, kernels.Operand)
				b.Attention(kernels.Attention{Out: out, QKV: b.filled(3*heads*d, kernels.Operand), Heads: heads, Scale: scale, Slopes: []float32{0.5, 0.0625}})
				return out
			}})
	}
	return list
}

// narrowed has values that are no operands, some of them halfway between two,
// rounded by the kernel from rows without padding, or by the test.
func narrowed(cols int, kernel bool) func(b *bench) kernels.Buffer {
	return func(b *bench) kernels.Buffer {
		values, out := b.values(cols, func(v float32) float32 { return v }), b.Tokens(cols, kernels.Operand)
		for r := 0; r < len(values); r += cols {
			copy(values[r:], []float32{1 + 0x1p-8, 1 + 0x3p-8, -1 - 0x1p-11, 1 + 0x3p-11, 0x1.8p-24})
		}
		s, ok := b.Stream.(*stream)
		if !ok || !kernel {
			b.Write(out, values)
			return out
		}
		from := s.b.floats(values)
		s.launch(s.typed("narrow"), [3]int{ceilDiv(cols, 256), s.rows(), 1}, 256, 0, out.(*buffer).as(), from,
			int32(s.rows()), int32(cols), int32(pitch(cols)), int32(cols))
		s.free([]uint64{from})
		return out
	}
}

// widened has operands as float32, by the kernel or by the test.
func widened(cols int, kernel bool) func(b *bench) kernels.Buffer {
	return func(b *bench) kernels.Buffer {
		values, out := b.values(cols, b.round), b.Tokens(cols, kernels.Residual)
		s, ok := b.Stream.(*stream)
		if !ok || !kernel {
			b.Write(out, values)
			return out
		}
		from := b.Tokens(cols, kernels.Operand)
		b.Write(from, values)
		s.launch(s.typed("widen"), [3]int{ceilDiv(cols, 256), s.rows(), 1}, 256, 0, residual(out), from.(*buffer).as(),
			int32(s.rows()), int32(cols), int32(pitch(cols)), int32(pitch(cols)))
		return out
	}
}

// result runs a job on a batch of sequences of those lengths and tags.
func (j job) result(t *testing.T, backend kernels.Backend, o operand, lens, tags []int) (values []float32, cols int, k kernels.Kind) {
	t.Helper()
	values, cols, k, err := j.try(t, backend, o, lens, tags)
	if err != nil {
		t.Fatal(err)
	}
	return values, cols, k
}

func (j job) try(t *testing.T, backend kernels.Backend, o operand, lens, tags []int) (values []float32, cols int, k kernels.Kind, err error) {
	t.Helper()
	var batch kernels.Batch
	for i, n := range lens {
		rng := rand.New(rand.NewPCG(uint64(tags[i]), 3))
		ids := make([]int32, n)
		for p := range ids {
			ids[p] = int32(rng.IntN(9))
		}
		ids[0] = 0 // else a sequence of masks alone has no scale
		batch.Append(ids)
	}
	s, err := backend.NewStream(kernels.Limits{Tokens: len(batch.IDs), Sequences: len(lens)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := &bench{t: t, backend: backend, Stream: s, lens: lens, tags: tags, round: o.round}
	s.Begin(batch)
	out := j.run(b)
	values = make([]float32, kernels.Rows(batch, out)*out.Cols())
	s.Read(values, out)
	return values, out.Cols(), out.Kind(), s.Wait()
}

// Every kernel in every type errs against float64 at most twice as much as
// float32 loops do whose result is rounded to that type, or gives the bits of
// the kernels that it stands for; gives the same bits in every order of its
// threads; and the same bits for a sequence alone.
func TestOperandTypes(t *testing.T) {
	whole(t)
	path, err := program()
	start(t, path, err).Close()
	for _, o := range []operand{fp32, bf16, fp16} {
		for _, j := range jobs() {
			t.Run(o.suffix+"/"+j.name, func(t *testing.T) {
				t.Parallel()
				dev := start(t, path, nil)
				b := &backend{dev, o}
				defer b.Close()
				tags := count(len(j.lens))
				got, cols, kind := j.result(t, b, o, j.lens, tags)
				if j.parts != nil {
					parts, _, _ := job{run: j.parts}.result(t, b, o, j.lens, tags)
					same(t, "not fused", parts, got)
				} else {
					want, _, _ := j.result(t, ref.New(), o, j.lens, tags)
					base, _, _ := j.result(t, ref.NewFloat32(), o, j.lens, tags)
					if kind == kernels.Operand {
						for i, v := range base {
							base[i] = o.round(v)
						}
					}
					compare(t, got, base, want, cols)
				}
				for order := uint64(1); order < 4; order++ {
					if err := dev.SetOrder(order); err != nil {
						t.Fatal(err)
					}
					again, _, _ := j.result(t, b, o, j.lens, tags)
					same(t, fmt.Sprintf("order %d", order), got, again)
				}
				per := len(got) / cols
				if per == len(j.lens) {
					return // pooled
				}
				for i, from := 0, 0; i < len(j.lens); i++ {
					to := from + j.lens[i]*cols
					if i%2 == 0 { // a few of them, for the time that it takes
						alone, _, _ := j.result(t, b, o, j.lens[i:i+1], tags[i:i+1])
						same(t, fmt.Sprintf("sequence %d alone", i), got[from:to], alone)
					}
					from = to
				}
			})
		}
	}
}

func count(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func same(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Errorf("%s: value %d is %v and was %v", what, i, b[i], a[i])
			return
		}
	}
}

// compare bounds the error of the whole result, and that of its worst row, by
// twice the baseline's; four roundings of float32 are always allowed.
func compare(t *testing.T, got, base, want []float32, cols int) {
	t.Helper()
	worst, worstBase := 0.0, 0.0
	for r := 0; r < len(want); r += cols {
		if e := relative(got[r:r+cols], want[r:r+cols]); !(e <= worst) {
			worst = e
		}
		worstBase = max(worstBase, relative(base[r:r+cols], want[r:r+cols]))
	}
	if bound := 2*worstBase + 0x1p-22; !(worst <= bound) {
		t.Errorf("a row errs by %.3g (relative L2), the bound is %.3g", worst, bound)
	}
	if all, bound := relative(got, want), 2*relative(base, want)+0x1p-22; !(all <= bound) {
		t.Errorf("the result errs by %.3g (relative L2), the bound is %.3g", all, bound)
	}
}

func relative(a, b []float32) float64 {
	diff, norm := 0.0, 0.0
	for i := range b {
		d := float64(a[i]) - float64(b[i])
		diff += d * d
		norm += float64(b[i]) * float64(b[i])
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}
