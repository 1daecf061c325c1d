package main

import (
	"math"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// expCoefficients are the coefficients of q in e^r = 1 + r + r²·q(r) for |r| ≤ ln2/2, interpolated at the Chebyshev
// points. The relative error is below 1.1e-8.
var expCoefficients = []float32{0.5, 0.16666576, 0.041666556, 0.008363185, 0.0013926191}

// exp replaces x ≤ 0 by e^x = 2^n·e^r. Arguments below −87 are raised to −87.
func (i isa) exp(g *generator, x reg.VecVirtual) reg.VecVirtual {
	const shift = 3 << 22 // adding shift rounds to an integer
	g.VMAXPS(x, i.get(g, -87), x)
	n, v, e := i.register(g), i.register(g), i.register(g)
	g.VMOVUPS(g.constant(shift), v)
	g.VFMADD231PS(g.constant(math.Log2E), x, v)
	g.VSUBPS(g.constant(shift), v, n)
	// ln2 is split in two; high has so few significant bits that n·high is exact.
	const high = 0.693359375
	low := math.Ln2 - high
	g.VFNMADD231PS(g.constant(high), n, x)
	g.VFNMADD231PS(g.constant(float32(low)), n, x)
	i.horner(g, append([]float32{1, 1}, expCoefficients...), x, e)
	g.VPSLLD(Imm(23), v, v)
	g.VPADDD(v, e, e)
	return e
}

// get loads a constant into all lanes of a register.
func (i isa) get(g *generator, value float32) reg.VecVirtual {
	v := i.register(g)
	g.VMOVUPS(g.constant(value), v)
	return v
}

// horner evaluates in y the polynomial in x with coefficients c, lowest power first.
func (i isa) horner(g *generator, c []float32, x, y reg.VecVirtual) {
	g.VMOVUPS(g.constant(c[len(c)-1]), y)
	for k := len(c) - 2; k >= 0; k-- {
		g.VFMADD213PS(g.constant(c[k]), x, y)
	}
}

// tailCoefficients are the coefficients of Φ(−t)·e^(t²/2)·(t+4) as a polynomial in s = (t−4)/(t+4), interpolated at the
// Chebyshev points of 0 ≤ t ≤ 8. The relative error is 4e-8 up to t = 5, and 1e-5 at t = 13, where Φ is 1e-38.
var tailCoefficients = []float32{0.75528514, -0.6078966, 0.38713837, -0.18652008, 0.0603797, -0.00758999, -0.0034447704, 0.0019255073, 0.0005603627}

const tailCentre = 4

// gelu computes x·Φ(x) as max(x, 0) − t·Φ(−t) with t = |x|. No two nearly equal values are subtracted, so small results
// are as accurate as large ones.
func (i isa) gelu(g *generator, x reg.VecVirtual) reg.VecVirtual {
	t, h, rest := i.register(g), i.register(g), i.register(g)
	g.VANDPS(g.constant(math.Float32frombits(math.MaxInt32)), x, t)
	g.VMINPS(g.constant(13), t, t)
	// t² as the sum of two floats: a rounded t² would cost e^(−t²/2) several bits.
	g.VMULPS(t, t, h)
	g.VMOVAPS(t, rest)
	g.VFMSUB213PS(h, t, rest)
	g.VMULPS(g.constant(-0.5), h, h)
	g.VMULPS(g.constant(-0.5), rest, rest)
	e := i.exp(g, h)
	g.VFMADD213PS(e, e, rest)

	inverse, s, p := i.get(g, 1), i.register(g), i.register(g)
	g.VADDPS(g.constant(tailCentre), t, p)
	g.VDIVPS(p, inverse, inverse)
	g.VSUBPS(g.constant(tailCentre), t, s)
	g.VMULPS(inverse, s, s)
	i.horner(g, tailCoefficients, s, p)
	g.VMULPS(inverse, t, t)
	g.VMULPS(rest, t, t)
	g.VMULPS(p, t, t)

	y := i.register(g)
	g.zero(y)
	g.VMAXPS(x, y, y) // keeps a NaN in x
	g.VSUBPS(t, y, y)
	return y
}

func activations(g *generator, i isa) {
	g.function("gelu"+i.name, "func(x *float32, n int)", "gelu"+i.name+" replaces n values by their GELU.")
	x, n := g.param("x"), g.param("n")
	i.eachVector(g, "vector", n, []reg.GPVirtual{x}, func(m *mask) {
		i.store(g, i.gelu(g, i.load(g, Mem{Base: x}, m)), m, Mem{Base: x})
	})
	g.end()

	g.function("gateGELU"+i.name, "func(out *float32, in *float32, up *float32, n int)", "gateGELU"+i.name+" sets n values of out to GELU(in) · up.")
	out, in, up, n := g.param("out"), g.param("in"), g.param("up"), g.param("n")
	i.eachVector(g, "vector", n, []reg.GPVirtual{out, in, up}, func(m *mask) {
		y := i.gelu(g, i.load(g, Mem{Base: in}, m))
		g.VMULPS(i.load(g, Mem{Base: up}, m), y, y)
		i.store(g, y, m, Mem{Base: out})
	})
	g.end()
}
