package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// A job runs one operation, or those that one kernel computes, and returns its output.
type job struct {
	name    string
	lengths []int
	run     func(b *bench) kernels.Buffer
	// widened says that the result has been in the operand type.
	widened bool
}

// baseline marks float32 loops that round between operations, where the operand type does.
type baseline struct{ kernels.Backend }

// bench is a stream with a batch begun, and draws that are the same on every backend: values of the operand type, so that
// no backend rounds them.
type bench struct {
	t       *testing.T
	backend kernels.Backend
	kernels.Stream
	lengths, tags []int
	dtype         DType
	draws         uint64
	baseline      bool // the backend is float32 loops, which round where the operand type does
}

// rounded is values as the type holds them.
func rounded(t DType, values []float32) []float32 {
	raw := make([]byte, len(values)*t.size())
	t.encode(raw, values)
	t.decode(values, raw)
	return values
}

func (b *bench) load(role kernels.Role, shape ...int) kernels.Weight {
	b.draws++
	spread := 1.0
	if role == kernels.Projection {
		spread = 1 / math.Sqrt(float64(shape[1]))
	}
	m := randomTensor(b.draws, spread, shape...)
	w, err := b.backend.Load(role, tensor{shape, rounded(b.dtype, m.values)})
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

// filled is an activation whose rows depend on their sequence's tag.
func (b *bench) filled(cols int, k kernels.Kind) kernels.Buffer {
	b.draws++
	var rows []float32
	for i, n := range b.lengths {
		rows = append(rows, randomTensor(b.draws<<16|uint64(b.tags[i]), 1, n, cols).values...)
	}
	f := b.Tokens(cols, k)
	b.Write(f, rounded(b.dtype, rows))
	return f
}

// rounded makes a buffer of the baseline hold values of the operand type, as it does on a GPU, which rounds them itself.
func (b *bench) rounded(x kernels.Buffer) {
	if b.baseline {
		values := make([]float32, total(b.lengths)*x.Cols())
		b.Read(values, x)
		b.Write(x, rounded(b.dtype, values))
	}
}

// rotated is an attention with its rotation. The baseline rotates apart, and rounds, as the kernel does in between.
func (b *bench) rotated(o kernels.Attention) {
	if !b.baseline {
		b.Attention(o)
		return
	}
	d := 2 * len(o.Rotary.InvFreq)
	values := make([]float32, total(b.lengths)*o.QKV.Cols())
	b.Read(values, o.QKV)
	row := values
	for _, n := range b.lengths {
		for position := range n {
			for h := range 2 * o.Heads { // queries, then keys
				scale := float32(1)
				if h < o.Heads {
					scale = o.Rotary.QScale
				}
				for j, f := range o.Rotary.InvFreq {
					sin, cos := math.Sincos(float64(float32(position) * f))
					x, y := &row[h*d+j], &row[h*d+j+d/2]
					*x, *y = (*x*float32(cos)-*y*float32(sin))*scale, (*y*float32(cos)+*x*float32(sin))*scale
				}
			}
			row = row[o.QKV.Cols():]
		}
	}
	b.Write(o.QKV, rounded(b.dtype, values))
	o.Rotary = nil
	b.Attention(o)
}

// linear is a product to cols columns with random weights and a bias, and what follows it.
func (b *bench) linear(out kernels.Buffer, cols, in int, then kernels.Activation) {
	b.Linear(kernels.Linear{Out: out, In: b.filled(in, kernels.Operand), W: b.load(kernels.Projection, cols, in),
		Bias: b.load(kernels.Vector, cols), Then: then})
}

// activate applies a GELU in place: on a device by the kernel that follows a product of cuBLAS, elsewhere behind a
// product with the identity, which changes no value.
func (b *bench) activate(x kernels.Buffer) kernels.Buffer {
	if s, ok := b.Stream.(*stream); ok {
		s.alone(func() error { return s.activate(of(x), total(b.lengths)) })
		return x
	}
	out := b.Tokens(x.Cols(), x.Kind())
	b.Linear(kernels.Linear{Out: out, In: x, W: b.identity(x.Cols()), Then: kernels.GELU})
	return out
}

// gate does likewise with the two halves of in.
func (b *bench) gate(out, in kernels.Buffer) {
	if s, ok := b.Stream.(*stream); ok {
		s.alone(func() error { return s.gate(of(out), of(in), total(b.lengths)) })
		return
	}
	b.Linear(kernels.Linear{Out: out, In: in, W: b.identity(in.Cols()), Then: kernels.GEGLU})
}

func (b *bench) identity(n int) kernels.Weight {
	values := make([]float32, n*n)
	for i := range n {
		values[i*n+i] = 1
	}
	w, err := b.backend.Load(kernels.Projection, tensor{[]int{n, n}, values})
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

func total(lengths []int) int {
	n := 0
	for _, l := range lengths {
		n += l
	}
	return n
}

// mixed has sequences on both sides of the tiles of 64 and 128 rows.
var mixed = []int{65, 1, 129, 31, 2, 64, 33}

func jobs() []job {
	const both = kernels.Residual | kernels.Operand
	list := []job{
		{name: "embed", lengths: mixed, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(36, kernels.Operand)
			b.Embed(kernels.Embed{Out: out, Table: b.load(kernels.Lookup, 9, 36), Type: b.load(kernels.Vector, 36), Scale: 0.88, Mask: 4})
			return out
		}},
		{name: "norm", lengths: mixed, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(100, kernels.Operand)
			b.Norm(kernels.Norm{Out: out, In: b.filled(100, kernels.Residual), Gain: b.load(kernels.Vector, 100), Bias: b.load(kernels.Vector, 100), Eps: 1e-5})
			return out
		}},
		{name: "norm of wide rows", lengths: []int{2, 3}, run: func(b *bench) kernels.Buffer {
			x := b.filled(2562, both)
			b.Norm(kernels.Norm{Out: x, In: x, Add: b.filled(2562, kernels.Residual), Gain: b.load(kernels.Vector, 2562), Bias: b.load(kernels.Vector, 2562), Eps: 1e-12})
			return x
		}},
		{name: "activate", lengths: mixed, run: func(b *bench) kernels.Buffer {
			return b.activate(b.filled(1030, kernels.Operand))
		}},
		{name: "activate, narrow", lengths: mixed, run: func(b *bench) kernels.Buffer {
			x, out := b.activate(b.filled(50, both)), b.Tokens(17, kernels.Operand)
			b.rounded(x)
			b.Linear(kernels.Linear{Out: out, In: x, W: b.load(kernels.Projection, 17, 50)})
			return out
		}},
		{name: "gate, narrow", lengths: mixed, run: func(b *bench) kernels.Buffer {
			x, out := b.Tokens(50, both), b.Tokens(17, kernels.Operand)
			b.gate(x, b.filled(100, both))
			b.rounded(x)
			b.Linear(kernels.Linear{Out: out, In: x, W: b.load(kernels.Projection, 17, 50)})
			return out
		}},
		{name: "attention, widen", lengths: mixed, widened: true, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(32, both)
			b.Attention(kernels.Attention{Out: out, QKV: b.filled(96, kernels.Operand), Heads: 2, Scale: 0.25})
			return out
		}},
		{name: "residual", lengths: mixed, run: func(b *bench) kernels.Buffer {
			in, x := b.filled(140, kernels.Operand), b.filled(71, kernels.Residual)
			b.Linear(kernels.Linear{Out: x, In: in, W: b.load(kernels.Projection, 71, 140), Bias: b.load(kernels.Vector, 71), Add: x})
			return x
		}},
		{name: "linear, pool", lengths: mixed, run: func(b *bench) kernels.Buffer {
			x, out := b.Tokens(40, both), b.Sequences(40)
			b.linear(x, 40, 24, kernels.Identity)
			b.Pool(kernels.Pool{Out: out, In: x})
			return out
		}},
	}
	for _, cols := range []int{48, 50} {
		list = append(list, job{name: fmt.Sprintf("gate %d", cols), lengths: mixed, run: func(b *bench) kernels.Buffer {
			out := b.Tokens(cols, kernels.Operand)
			b.gate(out, b.filled(2*cols, kernels.Operand))
			return out
		}})
	}
	for _, shape := range [][2]int{{16, 16}, {17, 33}, {136, 64}, {320, 200}, {48, 530}} {
		out, in := shape[0], shape[1]
		lengths := mixed
		if out*in > 40_000 {
			lengths = []int{1, 65, 97}
		}
		list = append(list,
			job{name: fmt.Sprintf("linear %dx%d", out, in), lengths: lengths, run: func(b *bench) kernels.Buffer {
				x := b.Tokens(out, kernels.Operand)
				b.linear(x, out, in, kernels.Identity)
				return x
			}},
			job{name: fmt.Sprintf("linear, gelu %dx%d", out, in), lengths: lengths, run: func(b *bench) kernels.Buffer {
				x := b.Tokens(out, kernels.Operand)
				b.linear(x, out, in, kernels.GELU)
				return x
			}},
			job{name: fmt.Sprintf("linear, geglu %dx%d", out, in), lengths: lengths, run: func(b *bench) kernels.Buffer {
				x := b.Tokens(out, kernels.Operand)
				b.linear(x, 2*out, in, kernels.GEGLU)
				return x
			}})
	}
	for _, d := range attentionHeads {
		const heads = 2
		scale := float32(1 / math.Sqrt(float64(d)))
		attention := func(lengths []int, slopes []float32) func(*bench) kernels.Buffer {
			return func(b *bench) kernels.Buffer {
				out := b.Tokens(heads*d, kernels.Operand)
				b.Attention(kernels.Attention{Out: out, QKV: b.filled(3*heads*d, kernels.Operand), Heads: heads, Scale: scale, Slopes: slopes})
				return out
			}
		}
		rotary := &kernels.Rotary{QScale: scale, InvFreq: make([]float32, d/2)}
		for j := range rotary.InvFreq {
			rotary.InvFreq[j] = float32(math.Pow(10000, -2*float64(j)/float64(d)))
		}
		list = append(list,
			job{name: fmt.Sprintf("attention %d", d), lengths: mixed, run: attention(mixed, nil)},
			job{name: fmt.Sprintf("attention %d, long", d), lengths: []int{300}, run: attention([]int{300}, nil)},
			job{name: fmt.Sprintf("alibi %d", d), lengths: []int{3, 140}, run: attention([]int{3, 140}, []float32{0.5, 0.0625})},
			job{name: fmt.Sprintf("rotary, attention %d", d), lengths: []int{65, 1, 130, 300}, run: func(b *bench) kernels.Buffer {
				qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
				b.rotated(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: 1, Rotary: rotary})
				return out
			}})
	}
	return list
}

// try runs a job on a batch of sequences of those lengths and tags.
func (j job) try(t *testing.T, backend kernels.Backend, dtype DType, lengths, tags []int) (values []float32, cols int, k kernels.Kind, err error) {
	t.Helper()
	var batch kernels.Batch
	for i, n := range lengths {
		rng := rand.New(rand.NewPCG(uint64(tags[i]), 3))
		ids := make([]int32, n)
		for p := range ids {
			ids[p] = int32(rng.IntN(9))
		}
		ids[0] = 0 // else a sequence of masks alone has no scale
		batch.Append(ids)
	}
	s, err := backend.NewStream(kernels.Limits{Tokens: len(batch.IDs), Sequences: len(lengths)})
	if err != nil {
		return nil, 0, 0, err
	}
	defer s.Close()
	_, isBaseline := backend.(baseline)
	b := &bench{t: t, backend: backend, Stream: s, lengths: lengths, tags: tags, dtype: dtype, baseline: isBaseline}
	s.Begin(batch)
	out := j.run(b)
	values = make([]float32, kernels.Rows(batch, out)*out.Cols())
	s.Read(values, out)
	return values, out.Cols(), out.Kind(), s.Wait()
}

// result is try with the tags 0, 1, 2, …, where nothing may fail.
func (j job) result(t *testing.T, backend kernels.Backend, dtype DType) (values []float32, cols int, k kernels.Kind) {
	t.Helper()
	values, cols, k, err := j.try(t, backend, dtype, j.lengths, counted(len(j.lengths)))
	if err != nil {
		t.Fatalf("%s: %v", j.name, err)
	}
	return values, cols, k
}

func counted(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// TestGPUOperands: every kernel in every type errs against float64 at most twice as much as float32 loops do whose result
// is rounded to that type, and gives a sequence the same bits alone.
func TestGPUOperands(t *testing.T) {
	holdGPU(t)
	t.Setenv(cublasVariable, "none")
	for _, dtype := range []DType{FP32, BF16, FP16} {
		b := requireGPU(t, dtype)
		defer b.Close()
		for _, j := range jobs() {
			t.Run(dtype.String()+"/"+j.name, func(t *testing.T) {
				got, cols, kind := j.result(t, b, dtype)
				want, _, _ := j.result(t, ref.New(), dtype)
				base, _, _ := j.result(t, baseline{ref.NewFloat32()}, dtype)
				if kind == kernels.Operand || j.widened {
					rounded(dtype, base)
				}
				compareRows(t, got, base, want, cols)
				if len(got)/cols == len(j.lengths) {
					return // pooled
				}
				for i, from := 0, 0; i < len(j.lengths); i++ {
					to := from + j.lengths[i]*cols
					if i%2 == 0 { // some of them, for the time that it takes
						alone, _, _, err := j.try(t, b, dtype, j.lengths[i:i+1], []int{i})
						if err != nil {
							t.Fatal(err)
						}
						sameBits(t, fmt.Sprintf("sequence %d alone", i), got[from:to], alone)
					}
					from = to
				}
			})
		}
	}
}

func sameBits(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Errorf("%s: value %d is %v and was %v", what, i, b[i], a[i])
			return
		}
	}
}

// compareRows bounds the error of the whole result, and that of its worst row, by twice the baseline's; four roundings of
// float32 are always allowed.
func compareRows(t *testing.T, got, base, want []float32, cols int) {
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

// relative is distance, and 0 for equal values even where they are all 0.
func relative(a, b []float32) float64 {
	for i := range b {
		if a[i] != b[i] {
			return distance(a, b)
		}
	}
	return 0
}
