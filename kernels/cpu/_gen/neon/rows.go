package main

import "math"

// rows generates the functions that compute row by row: activations, the two passes of a softmax, LayerNorm, rotary
// embedding, scaling and addition.
func rows(g *generator) {
	activations(g)
	scoreMaximum(g)
	scoreWeights(g)
	reduce(g, "sum", "x *float32, n int", "adds n values", nil)
	reduce(g, "squares", "x *float32, n int, mean float64", "adds (x − mean)² over n values", func() func(v, sum vec) {
		mean := g.vec()
		g.op("FMOVD %s, %s", g.params["mean"], mean.q())
		g.op("VDUP V%d.D[0], %s", mean, mean.as("D2"))
		return func(v, sum vec) {
			g.three(fsub|double, v, v, mean)
			g.three(fmla|double, sum, v, v)
		}
	})
	standardize(g)
	rotary(g)

	g.function("scaleNEON", "out *float32, ldout int, in *float32, ldin int, rows int, n int, factors *float32", "",
		"scaleNEON sets n values in each row of out to the row of in, multiplied by the row's factor.")
	out, ldout, in, ldin := g.param("out"), g.strideParam("ldout"), g.param("in"), g.strideParam("ldin")
	rows, factors := g.param("rows"), g.param("factors")
	n, to, from, factor := g.gp(), g.gp(), g.gp(), g.vec()
	g.label("row")
	g.op("FMOVS.P 4(%s), %s", factors, factor.q())
	g.op("VDUP V%d.S[0], %s", factor, factor.as("S4"))
	g.op("MOVD %s, %s", g.params["n"], n)
	g.op("MOVD %s, %s", out, to)
	g.op("MOVD %s, %s", in, from)
	g.eachVector(n, []gp{to, from}, func(load, store func(vec, gp)) {
		v := g.vec()
		load(v, from)
		g.three(fmul, v, v, factor)
		store(v, to)
	})
	g.op("ADD %s, %s", ldout, out)
	g.op("ADD %s, %s", ldin, in)
	g.op("SUBS $1, %s", rows)
	g.op("BNE row")
	g.op("RET")

	g.function("addNEON", "out *float32, in *float32, n int", "", "addNEON adds n values of in to out.")
	out, in, n = g.param("out"), g.param("in"), g.param("n")
	g.eachVector(n, []gp{out, in}, func(load, store func(vec, gp)) {
		a, b := g.vec(), g.vec()
		load(a, out)
		load(b, in)
		g.three(fadd, a, a, b)
		store(a, out)
	})
	g.op("RET")
}

// scores holds the registers from which the two passes of a softmax compute the scores of neighbouring rows. Each pass
// computes the scores from the rows, so that no score is stored between the passes.
type scores struct {
	row, ld, rows, maxima, lanes           gp
	scale, slope, position, distance, step vec
	one                                    vec
}

// beginScores loads the parameters from which the scores are computed.
func beginScores(g *generator) scores {
	s := scores{
		row: g.param("row"), ld: g.strideParam("ld"), rows: g.param("rows"), maxima: g.param("maxima"),
		scale: g.broadcast("scale"), slope: g.broadcast("slope"), position: g.broadcast("position"), distance: g.vec(),
	}
	c := g.constants(lanes, 1)
	s.step, s.one = c[0], c[1]
	count := g.vec()
	g.load(count, g.table("count", lanes, func(lane int) uint32 { return math.Float32bits(float32(lane)) }), 0)
	g.three(fsub, s.position, s.position, count)
	s.lanes = g.table("lanes", 2*lanes, func(lane int) uint32 {
		if lane < lanes {
			return math.MaxUint32
		}
		return 0
	})
	return s
}

// eachRow generates a loop over the rows. The function before generates the code at the start of a row, and the
// function after the code at its end. The function body generates the code for a vector v of scores, which are computed
// from the values at the address at. In the loop over whole vectors the mask is nil; for the remaining scores it is a
// register whose bits are set in the lanes of these scores. Rows are padded to whole vectors.
func (s *scores) eachRow(g *generator, before func(), body func(v vec, at gp, mask *vec), after func()) {
	n, p, table := g.gp(), g.gp(), g.gp()
	once := func(mask *vec) {
		v, d := g.vec(), g.vec()
		g.load(v, p, 0)
		g.three(fmul, v, v, s.scale)
		g.fabs(d, s.distance)
		g.three(fmls, v, s.slope, d)
		g.three(fsub, s.distance, s.distance, s.step)
		body(v, p, mask)
	}
	g.label("row")
	g.op("MOVD %s, %s", g.params["n"], n)
	g.op("MOVD %s, %s", s.row, p)
	g.move(s.distance, s.position)
	before()
	g.op("SUBS $%d, %s", lanes, n)
	g.op("BLT rest")
	g.label("vector")
	end := g.scope()
	once(nil)
	end()
	g.op("ADD $%d, %s", vecBytes, p)
	g.op("SUBS $%d, %s", lanes, n)
	g.op("BGE vector")
	g.label("rest")
	g.op("ADDS $%d, %s", lanes, n)
	g.op("BEQ done")
	mask := g.vec()
	g.op("SUB %s<<2, %s, %s", n, s.lanes, table)
	g.load(mask, table, vecBytes)
	once(&mask)
	g.label("done")
	after()
	g.three(fadd, s.position, s.position, s.one)
	g.op("ADD %s, %s", s.ld, s.row)
	g.op("ADD $4, %s", s.maxima)
	g.op("SUBS $1, %s", s.rows)
	g.op("BNE row")
	g.op("RET")
}

const scoreParams = "row *float32, ld int, rows int, n int, scale float32, slope float32, position float32, maxima *float32"

func scoreMaximum(g *generator) {
	g.function("scoreMaxNEON", scoreParams, "",
		"scoreMaxNEON sets maxima to the largest of the n scores row[j]·scale − slope·|position − j| of each row. The position\n"+
			"// increases by 1 from row to row.")
	s := beginScores(g)
	least, maximum := g.constants(float32(math.Inf(-1)))[0], g.vec()
	s.eachRow(g, func() { g.move(maximum, least) }, func(v vec, _ gp, mask *vec) {
		if mask != nil {
			g.op("VBIF %s, %s, %s", mask.as("B16"), maximum.as("B16"), v.as("B16"))
		}
		g.three(fmax, maximum, maximum, v)
	}, func() {
		g.fmaxv(maximum, maximum)
		g.op("FMOVS %s, (%s)", maximum.q(), s.maxima)
	})
}

func scoreWeights(g *generator) {
	g.function("scoreExpNEON", scoreParams+", sums *float32", "",
		"scoreExpNEON replaces the n scores of each row, as in scoreMaxNEON, by e^(score − maximum). It sets sums to the sum of\n"+
			"// each row.")
	s := beginScores(g)
	e := beginExp(g)
	sums, maximum, sum := g.param("sums"), g.vec(), g.vec()
	s.eachRow(g, func() {
		g.op("FMOVS (%s), %s", s.maxima, maximum.q())
		g.op("VDUP V%d.S[0], %s", maximum, maximum.as("S4"))
		g.zero(sum)
	}, func(v vec, at gp, mask *vec) {
		g.three(fsub, v, v, maximum)
		e.replace(g, v)
		if mask != nil {
			g.op("VAND %s, %[2]s, %[2]s", mask.as("B16"), v.as("B16"))
		}
		g.three(fadd, sum, sum, v)
		g.store(v, at, 0)
	}, func() {
		g.three(faddp, sum, sum, sum)
		g.three(faddp, sum, sum, sum)
		g.op("FMOVS.P %s, 4(%s)", sum.q(), sums)
	})
}

// reduce generates a sum over a row in float64, with four accumulators of two lanes. The function begin returns a
// function that adds the term of the register v to the register sum and may change v. If begin is nil, v is the term.
func reduce(g *generator, name, params, does string, begin func() func(v, sum vec)) {
	const width = 8
	g.function(name+"NEON", params, "float64", name+"NEON "+does+", a positive multiple of 8.")
	x, n := g.param("x"), g.param("n")
	term := func(v, sum vec) { g.three(fadd|double, sum, sum, v) }
	if begin != nil {
		term = begin()
	}
	var sums [width / 2]vec
	for i := range sums {
		sums[i] = g.vec()
		g.zero(sums[i])
	}
	from, v := [2]vec{g.vec(), g.vec()}, g.vec()
	g.label("vector")
	g.loadPair(from[0], from[1], x, 0)
	for i, sum := range sums {
		g.widen(v, from[i/2], i%2 == 1)
		term(v, sum)
	}
	g.op("ADD $%d, %s", 4*width, x)
	g.op("SUBS $%d, %s", width, n)
	g.op("BGT vector")
	g.three(fadd|double, sums[0], sums[0], sums[1])
	g.three(fadd|double, sums[2], sums[2], sums[3])
	g.three(fadd|double, sums[0], sums[0], sums[2])
	g.three(faddp|double, sums[0], sums[0], sums[0])
	g.op("FMOVD %s, %s", sums[0].q(), g.params["ret"])
	g.op("RET")
}

func standardize(g *generator) {
	g.function("standardizeNEON", "x *float32, gain *float32, bias *float32, n int, mean float32, rest float32, scale float32", "",
		"standardizeNEON replaces n values x by (x − mean − rest) · scale · gain + bias.")
	x, gain, bias, n := g.param("x"), g.param("gain"), g.param("bias"), g.param("n")
	middle, rest, scale := g.broadcast("mean"), g.broadcast("rest"), g.broadcast("scale")
	g.eachVector(n, []gp{x, gain, bias}, func(load, store func(vec, gp)) {
		v, factor, sum := g.vec(), g.vec(), g.vec()
		load(v, x)
		load(factor, gain)
		load(sum, bias)
		g.three(fsub, v, v, middle)
		g.three(fsub, v, v, rest)
		g.three(fmul, v, v, scale)
		g.three(fmla, sum, factor, v)
		store(sum, x)
	})
	g.op("RET")
}

// rotary generates the function that applies the rotary embedding to the neighbouring heads of one row.
func rotary(g *generator) {
	g.function("rotateNEON", "row *float32, cos *float32, sin *float32, half int, heads int, scale float32", "",
		"rotateNEON scales and rotates heads of 2·half values each.")
	low, half, heads := g.param("row"), g.param("half"), g.param("heads")
	scale := g.broadcast("scale")
	n, high, cos, sin := g.gp(), g.gp(), g.gp(), g.gp()
	g.label("head")
	g.op("MOVD %s, %s", half, n)
	g.op("ADD %s<<2, %s, %s", half, low, high)
	g.op("MOVD %s, %s", g.params["cos"], cos)
	g.op("MOVD %s, %s", g.params["sin"], sin)
	g.eachVector(n, []gp{low, high, cos, sin}, func(load, store func(vec, gp)) {
		a, b, c, s, p, q := g.vec(), g.vec(), g.vec(), g.vec(), g.vec(), g.vec()
		load(a, low)
		load(b, high)
		load(c, cos)
		load(s, sin)
		g.three(fmul, a, a, scale)
		g.three(fmul, b, b, scale)
		g.three(fmul, p, a, c)
		g.three(fmul, q, a, s)
		g.three(fmls, p, b, s)
		g.three(fmla, q, b, c)
		store(p, low)
		store(q, high)
	})
	g.op("MOVD %s, %s", high, low) // the next head follows the second half of this head
	g.op("SUBS $1, %s", heads)
	g.op("BNE head")
	g.op("RET")
}
