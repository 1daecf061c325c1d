package main

import (
	"math"

	"seqembed/kernels/cpu/_gen/polynomial"
)

// exp holds the registers with the constants of an exponential.
type exp struct {
	coefficients                         gp
	limit, shift, log2e, ln2High, ln2Low vec
}

// beginExp loads the constants of the exponential into registers.
func beginExp(g *generator) exp {
	c := g.constants(-87, polynomial.ExpShift, math.Log2E, polynomial.Ln2High, polynomial.Ln2Low)
	return exp{g.replicated(polynomial.Exp), c[0], c[1], c[2], c[3], c[4]}
}

// replace replaces x ≤ 0 by e^x, computed as 2^n·e^r, where n is an integer and |r| ≤ ln2/2. Arguments below −87 are
// raised to −87.
func (e *exp) replace(g *generator, x vec) {
	defer g.scope()()
	n, power := g.vec(), g.vec()
	g.three(fmax, x, x, e.limit)
	g.move(power, e.shift)
	g.three(fmla, power, x, e.log2e)
	g.three(fsub, n, power, e.shift)
	g.three(fmls, x, n, e.ln2High)
	g.three(fmls, x, n, e.ln2Low)
	horner(g, len(polynomial.Exp), e.coefficients, x, x)
	g.op("VSHL $23, %s, %[1]s", power.as("S4"))
	g.op("VADD %s, %[2]s, %[2]s", power.as("S4"), x.as("S4"))
}

// horner sets y to the value of the polynomial in x with n coefficients, lowest power first. y may be x.
func horner(g *generator, n int, coefficients gp, x, y vec) {
	defer g.scope()()
	sum, next := g.vec(), g.vec()
	g.load(sum, coefficients, (n-1)*vecBytes)
	for k := n - 2; k >= 0; k-- {
		g.load(next, coefficients, k*vecBytes)
		g.three(fmla, next, sum, x)
		sum, next = next, sum
	}
	g.move(y, sum)
}

// gelu holds the registers with the constants of a GELU.
type gelu struct {
	exp                                 exp
	tail                                gp
	limit, minusHalf, one, centre, half vec
}

// beginGELU loads the constants of the GELU into registers.
func beginGELU(g *generator) gelu {
	c := g.constants(13, -0.5, 1, polynomial.TailCentre, 0.5)
	return gelu{beginExp(g), g.replicated(polynomial.Tail), c[0], c[1], c[2], c[3], c[4]}
}

// replace replaces x by x·Φ(x) = max(x, 0) − t·Φ(−t) with t = |x|. No two nearly equal values are subtracted, so small
// results are as accurate as large ones.
func (c *gelu) replace(g *generator, x vec) {
	defer g.scope()()
	t, h, rest := g.vec(), g.vec(), g.vec()
	g.fabs(t, x)
	g.three(fmin, t, t, c.limit)
	// t² is computed as the sum of two floats, because e^(−t²/2) would lose several bits if t² were rounded to one
	// float.
	g.three(fmul, h, t, t)
	negative, inverse, s := g.vec(), g.vec(), g.vec()
	g.move(negative, h)
	g.three(fmls, negative, t, t) // h − t², the negative rest
	g.three(fmul, h, h, c.minusHalf)
	g.three(fmul, rest, negative, c.minusHalf)
	e := h
	c.exp.replace(g, e)
	// s = e^(h − rest), to first order in rest
	g.move(s, e)
	g.three(fmls, s, e, rest)

	g.three(fadd, inverse, t, c.centre)
	g.three(fdiv, inverse, c.one, inverse)
	g.three(fsub, rest, t, c.centre)
	g.three(fmul, rest, rest, inverse)
	horner(g, len(polynomial.Tail), c.tail, rest, rest)
	g.three(fmul, t, t, inverse)
	g.three(fmul, t, t, s)
	g.three(fmul, t, t, rest)

	// max(x, 0) is computed as (x + |x|)/2, which is NaN if x is −∞ or NaN
	g.fabs(s, x)
	g.three(fadd, x, x, s)
	g.three(fmul, x, x, c.half)
	g.three(fsub, x, x, t)
}

func activations(g *generator) {
	g.function("geluNEON", "x *float32, n int", "", "geluNEON replaces n values by their GELU.")
	x, n := g.param("x"), g.param("n")
	c := beginGELU(g)
	g.eachVector(n, []gp{x}, func(load, store func(vec, gp)) {
		v := g.vec()
		load(v, x)
		c.replace(g, v)
		store(v, x)
	})
	g.op("RET")

	g.function("gateGELUNEON", "out *float32, in *float32, up *float32, n int", "", "gateGELUNEON sets n values of out to GELU(in) · up.")
	out, in, up, n := g.param("out"), g.param("in"), g.param("up"), g.param("n")
	c = beginGELU(g)
	g.eachVector(n, []gp{out, in, up}, func(load, store func(vec, gp)) {
		v, factor := g.vec(), g.vec()
		load(v, in)
		load(factor, up)
		c.replace(g, v)
		g.three(fmul, v, v, factor)
		store(v, out)
	})
	g.op("RET")
}
