package kernelstest

import (
	"fmt"
	"math"

	"seqembed/kernels"
)

// Frequencies returns the rotary frequencies of a head of d columns.
func Frequencies(d int) []float32 {
	list := make([]float32, d/2)
	for j := range list {
		list[j] = float32(math.Pow(10000, -2*float64(j)/float64(d)))
	}
	return list
}

// cases returns the test cases of all operations, with matrix products for the given activations. If short is set,
// there are fewer cases, and the largest products are smaller.
func cases(activations []kernels.Activation, short bool) []Case {
	var list []Case
	add := func(name string, lens []int, build func(b *Bench) []kernels.Value) {
		list = append(list, Case{Name: name, Lengths: lens, Build: build})
	}

	for _, cols := range []int{16, 33, 320} {
		list = append(list, Case{Name: fmt.Sprintf("embed/%d", cols), Tokens: true, Build: func(b *Bench) []kernels.Value {
			x := b.Embed(kernels.Embed{Table: b.Table(cols), Type: b.Vector(cols, 1, 0), Scale: 0.88, Mask: Vocabulary - 1})
			return []kernels.Value{x, b.Stored(x)}
		}})
	}
	list = append(list, Case{Name: "embed/plain", Lengths: ragged, Tokens: true, Build: func(b *Bench) []kernels.Value {
		x := kernels.Embed{Table: b.Table(24), Scale: 1, Mask: kernels.NoMask}
		return []kernels.Value{b.Embed(x), b.Stored(b.Embed(x))}
	}})

	// The result of a product can be read as float32, in the operand type, or in both types.
	readers := map[string]func(b *Bench, y kernels.Value) []kernels.Value{
		"float32": func(b *Bench, y kernels.Value) []kernels.Value { return []kernels.Value{y} },
		"operand": func(b *Bench, y kernels.Value) []kernels.Value { return []kernels.Value{b.Stored(y)} },
		"both":    func(b *Bench, y kernels.Value) []kernels.Value { return []kernels.Value{y, b.Stored(y)} },
	}
	for _, shape := range linearShapes(short) {
		for _, then := range activations {
			lens := linearLengths(shape)
			if then != kernels.Identity && lens == nil {
				lens = ragged
			}
			add(fmt.Sprintf("linear/%dx%d %s", shape[0], shape[1], then), lens, func(b *Bench) []kernels.Value {
				return []kernels.Value{b.Stored(b.Linear(b.Input(shape[1]), b.Product(shape[0], shape[1], then), kernels.None))}
			})
		}
	}
	for i, reader := range []string{"float32", "operand", "both"} {
		for j, then := range activations {
			// 96 is a multiple of 16, the width of a panel of the CPU backend; 20 and 50 are not.
			widths := []int{20, 50, 96}
			if short {
				k := (i + j) % len(widths)
				widths = widths[k : k+1]
			}
			for _, cols := range widths {
				add(fmt.Sprintf("linear/%s of %d columns, read as %s", then, cols, reader), ragged, func(b *Bench) []kernels.Value {
					return readers[reader](b, b.Linear(b.Input(72), b.Product(cols, 72, then), kernels.None))
				})
			}
		}
		add("linear/residual, read as "+reader, ragged, func(b *Bench) []kernels.Value {
			return readers[reader](b, b.Linear(b.Input(500), b.Product(70, 500, kernels.Identity), b.Input(70)))
		})
		add("linear/residual that is also read later, read as "+reader, ragged, func(b *Bench) []kernels.Value {
			x := b.Input(70)
			y := b.Linear(b.Input(72), b.Product(70, 72, kernels.Identity), x)
			return append(readers[reader](b, y), readers[reader](b, x)...)
		})
	}
	wide := 1280
	if short {
		wide = 400
	}
	for _, then := range activations {
		add(fmt.Sprintf("linear/%s of %d columns", then, wide), ragged, func(b *Bench) []kernels.Value {
			return []kernels.Value{b.Stored(b.Linear(b.Input(24), b.Product(wide, 24, then), kernels.None))}
		})
	}
	add("linear/stacked", ragged, func(b *Bench) []kernels.Value {
		return []kernels.Value{b.Linear(b.Input(40), kernels.Linear{W: b.Projection(110, 40, 3)}, kernels.None)}
	})
	for _, then := range activations {
		if then.Gates() {
			add(fmt.Sprintf("linear/%s without bias", then), ragged, func(b *Bench) []kernels.Value {
				l := kernels.Linear{W: b.Projection(2*90, 400, 1), Then: then}
				return []kernels.Value{b.Stored(b.Linear(b.Input(400), l, kernels.None))}
			})
		}
	}
	add("linear/residual is the input", ragged, func(b *Bench) []kernels.Value {
		x := b.Input(72)
		return []kernels.Value{b.Linear(x, b.Product(72, 72, kernels.Identity), x)}
	})

	for _, cols := range []int{1, 64, 100, 320, 768} {
		add(fmt.Sprintf("norm/%d", cols), nil, func(b *Bench) []kernels.Value {
			y := b.Norm(b.Input(cols), b.Normalize(cols, 1e-5))
			return []kernels.Value{y, b.Stored(y)}
		})
	}
	for _, cols := range []int{1282, 2562} {
		add(fmt.Sprintf("norm/wide rows of %d columns", cols), []int{5, 1, 3}, func(b *Bench) []kernels.Value {
			return []kernels.Value{b.Norm(b.Input(cols), b.Normalize(cols, 1e-12))}
		})
	}
	add("norm/in place", ragged, func(b *Bench) []kernels.Value {
		x := b.Norm(b.Input(96), b.Normalize(96, 1e-12))
		return []kernels.Value{b.Norm(x, b.Normalize(96, 1e-12))}
	})
	add("norm/input is read later", ragged, func(b *Bench) []kernels.Value {
		x := b.Input(96)
		return []kernels.Value{b.Norm(x, b.Normalize(96, 1e-5)), x}
	})

	for _, d := range []int{16, 24, 32, 64, 128} {
		const heads = 2
		slopes := []float32{0.5, 0.0625}
		scale := float32(1 / math.Sqrt(float64(d)))
		rotary := &kernels.Rotary{QScale: scale, InvFreq: Frequencies(d)}
		attention := func(name string, lens []int, o kernels.Attention) {
			o.Heads = heads
			add(fmt.Sprintf("%s/%d", name, d), lens, func(b *Bench) []kernels.Value {
				return []kernels.Value{b.Stored(b.Attention(b.Input(3*heads*d), o))}
			})
		}
		// Of these four cases only alibi and rotary have a sequence of 785 tokens, because the reference is slow.
		attention("attention", ragged, kernels.Attention{Scale: scale})
		attention("alibi", nil, kernels.Attention{Scale: scale, Slopes: slopes})
		attention("rotary", []int{65, 1, 257, 2, 33, 785}, kernels.Attention{Scale: 1, Rotary: rotary})
		attention("rotary and alibi", ragged, kernels.Attention{Scale: 0.5, Slopes: slopes, Rotary: rotary})
	}
	add("attention/read as float32", ragged, func(b *Bench) []kernels.Value {
		return []kernels.Value{b.Attention(b.Input(3*2*32), kernels.Attention{Heads: 2, Scale: 0.2})}
	})
	add("attention/read as both", ragged, func(b *Bench) []kernels.Value {
		y := b.Attention(b.Input(3*2*32), kernels.Attention{Heads: 2, Scale: 0.2})
		return []kernels.Value{y, b.Stored(y)}
	})
	add("attention/two of one input", ragged, func(b *Bench) []kernels.Value {
		// The first attention must not change x, because the second one reads x, too.
		x := b.Input(3 * 2 * 16)
		o := kernels.Attention{Heads: 2, Scale: 1, Rotary: &kernels.Rotary{QScale: 0.25, InvFreq: Frequencies(16)}}
		first := b.Attention(x, o)
		return []kernels.Value{b.Stored(first), b.Stored(b.Attention(x, o)), b.Stored(x)}
	})
	add("attention/sharp", ragged, func(b *Bench) []kernels.Value {
		// The scores reach hundreds. If softmax did not subtract their maximum, the exponentials would overflow.
		return []kernels.Value{b.Stored(b.Attention(b.Input(3*2*32), kernels.Attention{Heads: 2, Scale: 16}))}
	})

	add("linear, norm, linear", ragged, func(b *Bench) []kernels.Value {
		x := b.Input(72)
		x = b.Norm(b.Linear(x, b.Product(72, 72, kernels.Identity), x), b.Normalize(72, 1e-5))
		return []kernels.Value{b.Linear(x, b.Product(56, 72, kernels.Identity), kernels.None)}
	})

	pooling := func(ranges ...kernels.Range) func(b *Bench) []kernels.Value {
		return func(b *Bench) (pooled []kernels.Value) {
			x := b.Input(75)
			for _, r := range ranges {
				pooled = append(pooled, b.Pool(x, r))
			}
			return pooled
		}
	}
	add("pool/all", nil, pooling(kernels.Range{}))
	add("pool/first", nil, pooling(kernels.Range{Limit: 1}))
	add("pool/residues", []int{3, 31, 4, 1025, 129}, pooling(kernels.Range{Skip: 1, Trim: 1}))
	add("pool/first residues", []int{3, 31, 4, 1025, 129}, pooling(kernels.Range{Skip: 1, Trim: 1, Limit: 100}))
	add("pool/several ranges", []int{3, 31, 4}, pooling(kernels.Range{}, kernels.Range{Skip: 1, Trim: 1}, kernels.Range{}))
	return list
}

// linearShapes returns the shapes [out, in] of matrix products. The second to last has many columns: several tiles and
// part of another. The last has a long inner dimension. Both are smaller if short is set, because products are slow on
// emulators and under the race detector.
func linearShapes(short bool) [][2]int {
	shapes := [][2]int{{16, 16}, {17, 33}, {64, 64}, {80, 385}}
	if short {
		return append(shapes, [2]int{272, 136}, [2]int{48, 1040})
	}
	return append(shapes, [2]int{720, 320}, [2]int{48, 3072})
}

// linearLengths returns the lengths of the sequences for a Linear of the given shape. For a weight of at most 20,000
// values it returns nil, for the default lengths (see Case.Lengths). For a larger weight it returns the lengths of a
// short batch, because the reference is slow.
func linearLengths(shape [2]int) []int {
	if shape[0]*shape[1] > 20_000 {
		return []int{1, 65, 33, 2, 98}
	}
	return nil
}
