package kernelstest

import (
	"fmt"
	"math"

	"seqembed/kernels"
)

// matrix is a Source over values in memory.
type matrix struct {
	shape  []int
	values []float32
}

func (m matrix) Shape() []int { return m.shape }

func (m matrix) ReadRows(dst []float32, first int) error {
	row := m.shape[len(m.shape)-1]
	copy(dst, m.values[first*row:])
	return nil
}

// projection loads a random [out, in] matrix in that many stacked parts,
// scaled so that outputs are of the size of the inputs.
func (b *bench) projection(out, in, parts int) kernels.Weight {
	var sources []kernels.Source
	for p := range parts {
		rows := out*(p+1)/parts - out*p/parts
		sources = append(sources, matrix{[]int{rows, in}, b.draw(rows*in, 1/math.Sqrt(float64(in)), 0)})
	}
	return b.load(kernels.Projection, sources...)
}

func (b *bench) vector(n int, spread, middle float64) kernels.Weight {
	return b.load(kernels.Vector, matrix{[]int{n}, b.draw(n, spread, middle)})
}

func (b *bench) draw(n int, spread, middle float64) []float32 {
	b.seed++
	values := normal(b.seed, n)
	for i, v := range values {
		values[i] = float32(float64(v)*spread + middle)
	}
	return values
}

func (b *bench) load(role kernels.Role, parts ...kernels.Source) kernels.Weight {
	w, err := b.backend.Load(role, parts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

// filled is an activation with random rows.
func (b *bench) filled(cols int, k kernels.Kind) kernels.Buffer {
	buf := b.Tokens(cols, k)
	b.Write(buf, b.input(cols))
	return buf
}

const both = kernels.Residual | kernels.Operand

func cases() []testCase {
	var list []testCase
	add := func(name string, lens []int, run func(b *bench) kernels.Buffer) {
		list = append(list, testCase{name, lens, run})
	}

	for _, cols := range []int{16, 33, 320} {
		add(fmt.Sprintf("embed/%d", cols), nil, func(b *bench) kernels.Buffer {
			table := b.load(kernels.Lookup, matrix{[]int{vocabulary, cols}, b.draw(vocabulary*cols, 1, 0)})
			out := b.Tokens(cols, kernels.Residual)
			b.Embed(kernels.Embed{Out: out, Table: table, Type: b.vector(cols, 1, 0), Scale: 0.88, Mask: vocabulary - 1})
			return out
		})
	}
	add("embed/plain", nil, func(b *bench) kernels.Buffer {
		table := b.load(kernels.Lookup, matrix{[]int{vocabulary, 24}, b.draw(vocabulary*24, 1, 0)})
		out := b.Tokens(24, both)
		b.Embed(kernels.Embed{Out: out, Table: table, Scale: 1, Mask: kernels.NoMask})
		return out
	})

	// linear is a product to out columns with a bias and what follows it.
	linear := func(out, in int, then kernels.Activation, k kernels.Kind) func(b *bench) kernels.Buffer {
		return func(b *bench) kernels.Buffer {
			n := out
			if then == kernels.GEGLU {
				n = 2 * out
			}
			x, y := b.filled(in, kernels.Operand), b.Tokens(out, k)
			b.Linear(kernels.Linear{Out: y, In: x, W: b.projection(n, in, 1), Bias: b.vector(n, 1, 0), Then: then})
			return y
		}
	}
	activations := []kernels.Activation{kernels.Identity, kernels.GELU, kernels.GEGLU}
	for _, shape := range [][2]int{{16, 16}, {17, 33}, {64, 64}, {80, 385}, {720, 320}, {48, 3072}} {
		for _, then := range activations {
			name := fmt.Sprintf("linear/%dx%d", shape[0], shape[1])
			lens := linearLengths(shape)
			if then != kernels.Identity {
				name += " " + then.String()
				if lens == nil {
					lens = ragged
				}
			}
			add(name, lens, linear(shape[0], shape[1], then, kernels.Operand))
		}
	}
	for _, then := range activations {
		for _, cols := range []int{50, 96} { // in panels of 16 columns, and not
			add(fmt.Sprintf("linear/%s of %d columns, residual", then, cols), ragged, linear(cols, 72, then, kernels.Residual))
			add(fmt.Sprintf("linear/%s of %d columns, both kinds", then, cols), ragged, linear(cols, 72, then, both))
		}
		for _, cols := range []int{20, 1280} {
			add(fmt.Sprintf("linear/%s of %d columns", then, cols), ragged, linear(cols, 24, then, kernels.Operand))
		}
	}
	add("linear/geglu without bias", ragged, func(b *bench) kernels.Buffer {
		in, out := b.filled(400, kernels.Operand), b.Tokens(90, kernels.Operand)
		b.Linear(kernels.Linear{Out: out, In: in, W: b.projection(2*90, 400, 1), Then: kernels.GEGLU})
		return out
	})
	add("linear/stacked", ragged, func(b *bench) kernels.Buffer {
		in, out := b.filled(40, kernels.Operand), b.Tokens(110, kernels.Operand)
		b.Linear(kernels.Linear{Out: out, In: in, W: b.projection(110, 40, 3)})
		return out
	})
	add("linear/residual", ragged, func(b *bench) kernels.Buffer {
		in, add, out := b.filled(500, both), b.filled(70, kernels.Residual), b.Tokens(70, kernels.Residual)
		b.Linear(kernels.Linear{Out: out, In: in, W: b.projection(70, 500, 1), Bias: b.vector(70, 1, 0), Add: add})
		return out
	})
	add("linear/residual to both kinds", ragged, func(b *bench) kernels.Buffer {
		in, add, out := b.filled(72, kernels.Operand), b.filled(50, both), b.Tokens(50, both)
		b.Linear(kernels.Linear{Out: out, In: in, W: b.projection(50, 72, 1), Bias: b.vector(50, 1, 0), Add: add})
		return out
	})
	add("linear/residual to operand", ragged, func(b *bench) kernels.Buffer {
		in, add, out := b.filled(72, kernels.Operand), b.filled(50, kernels.Residual), b.Tokens(50, kernels.Operand)
		b.Linear(kernels.Linear{Out: out, In: in, W: b.projection(50, 72, 1), Add: add})
		return out
	})
	add("linear/in place", ragged, func(b *bench) kernels.Buffer {
		in, x := b.filled(500, kernels.Operand), b.filled(70, kernels.Residual)
		b.Linear(kernels.Linear{Out: x, In: in, W: b.projection(70, 500, 1), Bias: b.vector(70, 1, 0), Add: x})
		return x
	})

	for _, cols := range []int{1, 64, 100, 320, 768, 1300, 2564} {
		add(fmt.Sprintf("norm/%d", cols), nil, func(b *bench) kernels.Buffer {
			in, out := b.filled(cols, kernels.Residual), b.Tokens(cols, both)
			b.Norm(kernels.Norm{Out: out, In: in, Gain: b.vector(cols, 0.1, 1), Bias: b.vector(cols, 0.1, 0), Eps: 1e-5})
			return out
		})
	}
	add("norm/residual in place", ragged, func(b *bench) kernels.Buffer {
		x, add := b.filled(96, kernels.Residual), b.filled(96, kernels.Residual)
		b.Norm(kernels.Norm{Out: x, In: x, Add: add, Gain: b.vector(96, 0.1, 1), Bias: b.vector(96, 0.1, 0), Eps: 1e-12})
		return x
	})

	for _, d := range []int{16, 24, 32, 64, 128} {
		const heads = 2
		invFreq := make([]float32, d/2)
		for j := range invFreq {
			invFreq[j] = float32(math.Pow(10000, -2*float64(j)/float64(d)))
		}
		slopes := []float32{0.5, 0.0625}
		rotary := &kernels.Rotary{QScale: float32(1 / math.Sqrt(float64(d))), InvFreq: invFreq}
		add(fmt.Sprintf("rotary/%d", d), []int{65, 1, 257, 2, 33, 1025}, func(b *bench) kernels.Buffer {
			qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
			b.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: 1, Rotary: rotary})
			return out
		})
		add(fmt.Sprintf("rotary and alibi/%d", d), ragged, func(b *bench) kernels.Buffer {
			qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
			b.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: 0.5, Slopes: slopes, Rotary: rotary})
			return out
		})
		add(fmt.Sprintf("rotary, twice/%d", d), ragged, func(b *bench) kernels.Buffer {
			// The first attention leaves its input as it was.
			qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
			for range 2 {
				b.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: 1, Rotary: rotary})
			}
			return out
		})
		// The long sequences are left to the case with slopes: the reference
		// takes its time.
		add(fmt.Sprintf("attention/%d", d), ragged, func(b *bench) kernels.Buffer {
			qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
			b.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: float32(1 / math.Sqrt(float64(d)))})
			return out
		})
		add(fmt.Sprintf("alibi/%d", d), nil, func(b *bench) kernels.Buffer {
			qkv, out := b.filled(3*heads*d, kernels.Operand), b.Tokens(heads*d, kernels.Operand)
			b.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: float32(1 / math.Sqrt(float64(d))), Slopes: slopes})
			return out
		})
	}
	add("attention/sharp", ragged, func(b *bench) kernels.Buffer {
		// Scores of some hundreds: a softmax that does not subtract the
		// largest would overflow.
		qkv, out := b.filled(3*2*32, kernels.Operand), b.Tokens(2*32, kernels.Operand)
		b.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: 2, Scale: 16})
		return out
	})

	add("linear, norm, linear", ragged, func(b *bench) kernels.Buffer {
		in, x := b.filled(72, both), b.Tokens(72, kernels.Residual)
		b.Linear(kernels.Linear{Out: x, In: in, W: b.projection(72, 72, 1), Add: in})
		b.Norm(kernels.Norm{Out: in, In: x, Gain: b.vector(72, 0.1, 1), Bias: b.vector(72, 0.1, 0), Eps: 1e-5})
		out := b.Reuse(b.Tokens(100, kernels.Operand), 56)
		b.Linear(kernels.Linear{Out: out, In: in, W: b.projection(56, 72, 1)})
		return out
	})

	for _, o := range []kernels.Pool{{}, {Limit: 1}} {
		add(fmt.Sprintf("pool/limit %d", o.Limit), nil, pooling(o))
	}
	add("pool/residues", []int{3, 31, 4, 1025, 129}, pooling(kernels.Pool{Skip: 1, Trim: 1}))
	add("pool/first residues", []int{3, 31, 4, 1025, 129}, pooling(kernels.Pool{Skip: 1, Trim: 1, Limit: 100}))
	return list
}

// linearLengths is every batch for small products, the ragged one for those
// that would take the reference too long.
func linearLengths(shape [2]int) []int {
	if shape[0]*shape[1] > 50_000 {
		return []int{1, 65, 33, 2, 98}
	}
	return nil
}

func pooling(o kernels.Pool) func(b *bench) kernels.Buffer {
	return func(b *bench) kernels.Buffer {
		o := o
		o.In, o.Out = b.filled(75, kernels.Residual), b.Sequences(75)
		b.Pool(o)
		return o.Out
	}
}
