package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// chains is the number of independent accumulators in the loop of peak. It exceeds latency times throughput of the FMA
// units, so that the units are always busy.
const chains = 12

// peak generates, for each instruction set, a loop of FMAs or, for bf16, of multiplications of bfloat16 pairs. Package
// bench/peak measures the peak rate of a core with this loop.
func peak(g *generator, sets ...isa) {
	for _, i := range sets {
		name := "fma" + i.name
		g.function(name, "func(n int)", name+" runs n rounds of 12 independent multiply-add instructions.")
		n := g.param("n")
		factor := i.register(g)
		g.zero(factor)
		sums := make([]reg.VecVirtual, chains)
		for c := range sums {
			sums[c] = i.register(g)
			g.zero(sums[c])
		}
		g.Label("loop")
		for _, s := range sums {
			g.VFMADD231PS(factor, factor, s)
		}
		g.DECQ(n)
		g.JNZ(LabelRef("loop"))
		g.end()
	}
}
