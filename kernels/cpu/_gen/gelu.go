package main

import (
	"math"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"seqembed/kernels/cpu/_gen/polynomial"
)

// exp computes e^x for x ≤ 0 as 2^n·e^r, where n is an integer and |r| ≤ ln2/2. Arguments below −87 are raised to −87.
func (i isa) exp(g *generator, x reg.VecVirtual) reg.VecVirtual {
	g.VMAXPS(x, i.get(g, expLimit), x)
	n, v, e := i.register(g), i.register(g), i.register(g)
	g.VMOVUPS(g.constant(polynomial.ExpShift), v)
	g.VFMADD231PS(g.constant(math.Log2E), x, v)
	g.VSUBPS(g.constant(polynomial.ExpShift), v, n)
	g.VFNMADD231PS(g.constant(polynomial.Ln2High), n, x)
	g.VFNMADD231PS(g.constant(polynomial.Ln2Low), n, x)
	i.horner(g, polynomial.Exp, x, e)
	g.VPSLLD(Imm(23), v, v)
	g.VPADDD(v, e, e)
	return e
}

// expLimit is the smallest argument of exp.
const expLimit = -87

// holdExp loads the constants of exp into registers (see hold).
func (i isa) holdExp(g *generator) {
	i.hold(g, expLimit, polynomial.ExpShift, math.Log2E, polynomial.Ln2High, polynomial.Ln2Low)
	i.hold(g, polynomial.Exp...)
}

// get loads a constant into all lanes of a new register.
func (i isa) get(g *generator, value float32) reg.VecVirtual {
	v := i.register(g)
	g.VMOVUPS(g.constant(value), v)
	return v
}

// horner sets y to the value of the polynomial in x with coefficients c, lowest power first.
func (i isa) horner(g *generator, c []float32, x, y reg.VecVirtual) {
	g.VMOVUPS(g.constant(c[len(c)-1]), y)
	for k := len(c) - 2; k >= 0; k-- {
		g.VFMADD213PS(g.constant(c[k]), x, y)
	}
}

// gelu computes x·Φ(x) as max(x, 0) − t·Φ(−t) with t = |x|. No two nearly equal values are subtracted, so small results
// are as accurate as large ones.
func (i isa) gelu(g *generator, x reg.VecVirtual) reg.VecVirtual {
	t, h, rest := i.register(g), i.register(g), i.register(g)
	g.VANDPS(g.constant(math.Float32frombits(math.MaxInt32)), x, t)
	g.VMINPS(g.constant(13), t, t)
	// t² is computed as the sum of two floats, because e^(−t²/2) would lose several bits if t² were rounded to one
	// float.
	g.VMULPS(t, t, h)
	g.VMOVAPS(t, rest)
	g.VFMSUB213PS(h, t, rest)
	g.VMULPS(g.constant(-0.5), h, h)
	g.VMULPS(g.constant(-0.5), rest, rest)
	e := i.exp(g, h)
	g.VFMADD213PS(e, e, rest)

	inverse, s, p := i.get(g, 1), i.register(g), i.register(g)
	g.VADDPS(g.constant(polynomial.TailCentre), t, p)
	g.VDIVPS(p, inverse, inverse)
	g.VSUBPS(g.constant(polynomial.TailCentre), t, s)
	g.VMULPS(inverse, s, s)
	i.horner(g, polynomial.Tail, s, p)
	g.VMULPS(inverse, t, t)
	g.VMULPS(rest, t, t)
	g.VMULPS(p, t, t)

	// y is max(x, 0), computed as (x + |x|)/2, which is NaN if x is −∞ or NaN
	y := i.register(g)
	g.VANDPS(g.constant(math.Float32frombits(math.MaxInt32)), x, y)
	g.VADDPS(x, y, y)
	g.VFNMSUB132PS(g.constant(-0.5), t, y)
	return y
}

// holdGELU loads constants of gelu into registers (see hold).
func (i isa) holdGELU(g *generator) {
	i.holdExp(g)
	i.hold(g, math.Float32frombits(math.MaxInt32), 13, -0.5, polynomial.TailCentre)
	i.hold(g, polynomial.Tail[:8]...)
}

func activations(g *generator, i isa) {
	g.function("gelu"+i.name, "func(x *float32, n int)", "gelu"+i.name+" replaces n values by their GELU.")
	x, n := g.param("x"), g.param("n")
	i.holdGELU(g)
	i.eachVector(g, "vector", n, []reg.GPVirtual{x}, func(m *mask) {
		i.store(g, i.gelu(g, i.load(g, Mem{Base: x}, m)), m, Mem{Base: x})
	})
	g.end()

	g.function("gateGELU"+i.name, "func(out *float32, in *float32, up *float32, n int)", "gateGELU"+i.name+" sets n values of out to GELU(in) · up.")
	out, in, up, n := g.param("out"), g.param("in"), g.param("up"), g.param("n")
	i.holdGELU(g)
	i.eachVector(g, "vector", n, []reg.GPVirtual{out, in, up}, func(m *mask) {
		y := i.gelu(g, i.load(g, Mem{Base: in}, m))
		g.VMULPS(i.load(g, Mem{Base: up}, m), y, y)
		i.store(g, y, m, Mem{Base: out})
	})
	g.end()
}
