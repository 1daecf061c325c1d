package kernelstest

import (
	"fmt"
	"math/rand/v2"

	"seqembed/kernels"
)

// randomPrograms and shortPrograms are the numbers of random programs in the whole suite and in its short mode.
const randomPrograms, shortPrograms = 24, 8

// randomProgram returns a straight-line program of random operations. Some of its values have long lifetimes and some
// short ones. They are read as float32, in the operand type, as both, or never, and some are results. Its products use
// the given activations. There must be at least two, and the first must be Identity.
func randomProgram(seed uint64, activations []kernels.Activation) Case {
	return Case{Name: fmt.Sprintf("program/%d", seed), Lengths: []int{33, 1, 65, 7}, Build: func(b *Bench) []kernels.Value {
		rng := rand.New(rand.NewPCG(seed, 11))
		widths := []int{16, 48, 50, 96}
		values := []kernels.Value{b.Input(96), b.Input(48)}
		pick := func(fits func(cols int) bool) kernels.Value {
			for _, i := range rng.Perm(len(values)) {
				if fits(b.Cols(values[i])) {
					return values[i]
				}
			}
			return kernels.None
		}
		anything := func(int) bool { return true }
		var results []kernels.Value
		for range 6 + rng.IntN(14) {
			x, y := pick(anything), kernels.None
			cols := b.Cols(x)
			switch rng.IntN(8) {
			case 0, 1:
				y = b.Norm(x, b.Normalize(cols, 1e-5))
			case 2:
				if x = pick(func(cols int) bool { return cols%48 == 0 }); x == kernels.None {
					continue
				}
				o := kernels.Attention{Heads: b.Cols(x) / 48, Scale: 0.25}
				if rng.IntN(2) == 0 {
					o.Rotary = &kernels.Rotary{QScale: 0.5, InvFreq: Frequencies(16)}
				}
				if rng.IntN(2) == 0 {
					o.Slopes = []float32{0.5, 0.125}[:o.Heads]
				}
				y = b.Attention(x, o)
			case 3:
				then := activations[1+rng.IntN(len(activations)-1)]
				y = b.Linear(x, b.Product(widths[rng.IntN(len(widths))], cols, then), kernels.None)
			case 4, 5:
				out := widths[rng.IntN(len(widths))]
				y = b.Linear(x, b.Product(out, cols, kernels.Identity), pick(func(cols int) bool { return cols == out }))
			case 6:
				results = append(results, b.Pool(x, kernels.Range{Limit: rng.IntN(3)}))
				continue
			case 7:
				results = append(results, x)
				continue
			}
			values = append(values, y)
		}
		return append(results, values[len(values)-1])
	}}
}
