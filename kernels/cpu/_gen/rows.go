package main

import (
	"math"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// rows generates the functions that compute row by row: activations, the two passes of a softmax, LayerNorm, rotary
// embedding, scaling and addition.
func rows(g *generator, i isa) {
	activations(g, i)
	scores(g, i)
	norms(g, i)
	rotary(g, i)

	g.function("scale"+i.name, "func(out *float32, ldout int, in *float32, ldin int, rows int, n int, factors *float32)",
		"scale"+i.name+" sets n values in each row of out to the row of in, multiplied by the row's factor.")
	out, ldout, in, ldin := g.param("out"), g.strideParam("ldout"), g.param("in"), g.strideParam("ldin")
	rows, factors := g.param("rows"), g.param("factors")
	n, to, from := g.GP64(), g.GP64(), g.GP64()
	g.Label("row")
	factor := i.register(g)
	g.VBROADCASTSS(Mem{Base: factors}, factor)
	g.Load(g.Param("n"), n)
	g.MOVQ(out, to)
	g.MOVQ(in, from)
	i.eachVector(g, "vector", n, []reg.GPVirtual{to, from}, func(m *mask) {
		v := i.load(g, Mem{Base: from}, m)
		g.VMULPS(factor, v, v)
		i.store(g, v, m, Mem{Base: to})
	})
	g.ADDQ(ldout, out)
	g.ADDQ(ldin, in)
	g.ADDQ(Imm(4), factors)
	g.DECQ(rows)
	g.JNZ(LabelRef("row"))
	g.end()

	g.function("add"+i.name, "func(out *float32, in *float32, n int)", "add"+i.name+" adds n values of in to out.")
	out, in, n = g.param("out"), g.param("in"), g.param("n")
	i.eachVector(g, "vector", n, []reg.GPVirtual{out, in}, func(m *mask) {
		v := i.load(g, Mem{Base: in}, m)
		g.VADDPS(i.load(g, Mem{Base: out}, m), v, v)
		i.store(g, v, m, Mem{Base: out})
	})
	g.end()
}

// scores generates the two passes of a softmax over neighbouring rows of scores. Both compute the scores from the rows,
// so that no score is stored between the passes. Rows are padded to whole vectors.
func scores(g *generator, i isa) {
	const params = "func(row *float32, ld int, rows int, n int, scale float32, slope float32, position float32, maxima *float32"

	g.function("scoreMax"+i.name, params+")",
		"scoreMax"+i.name+" sets maxima to the largest of the n scores row[j]·scale − slope·|position − j| of each row.",
		"The position increases by 1 from row to row.")
	s := beginScores(g, i)
	maximum := i.register(g)
	s.eachRow(g, func() {
		g.VMOVUPS(g.constant(float32(math.Inf(-1))), maximum)
	}, func(v reg.VecVirtual, at Mem, m *mask) {
		switch {
		case m == nil:
			g.VMAXPS(v, maximum, maximum)
		case i.lanes == 16:
			g.VMAXPS(v, maximum, m.k, maximum)
		default:
			g.VBLENDVPS(m.v, v, maximum, v)
			g.VMAXPS(v, maximum, maximum)
		}
	}, func() {
		g.VMOVSS(i.foldFloats(g, maximum, func(a, b, to Op) { g.VMAXPS(a, b, to) }), Mem{Base: s.maxima})
	})
	g.end()

	g.function("scoreExp"+i.name, params+", sums *float32)",
		"scoreExp"+i.name+" replaces the n scores of each row, as in scoreMax"+i.name+", by e^(score − maximum).",
		"It sets sums to the sum of each row.")
	s = beginScores(g, i)
	i.holdExp(g)
	sums, sum := g.param("sums"), i.register(g)
	maximum = i.register(g)
	s.eachRow(g, func() {
		g.VBROADCASTSS(Mem{Base: s.maxima}, maximum)
		g.zero(sum)
	}, func(v reg.VecVirtual, at Mem, m *mask) {
		g.VSUBPS(maximum, v, v)
		e := i.exp(g, v)
		i.keep(g, e, m)
		g.VADDPS(e, sum, sum)
		i.store(g, e, nil, at)
	}, func() {
		g.VMOVSS(i.foldFloats(g, sum, func(a, b, to Op) { g.VADDPS(a, b, to) }), Mem{Base: sums})
		g.ADDQ(Imm(4), sums)
	})
	g.end()
}

// scoreRows holds the registers from which the two passes of a softmax compute scores.
type scoreRows struct {
	isa                                         isa
	row, ld, rows, maxima                       reg.GPVirtual
	scale, slope, position, distance, step, abs reg.VecVirtual
}

// beginScores loads the parameters of the function.
func beginScores(g *generator, i isa) scoreRows {
	s := scoreRows{
		isa: i, row: g.param("row"), ld: g.strideParam("ld"), rows: g.param("rows"), maxima: g.param("maxima"),
		scale: i.broadcast(g, "scale"), slope: i.broadcast(g, "slope"), position: i.broadcast(g, "position"), distance: i.register(g),
	}
	count := g.table("count", 16, func(lane int) uint32 { return math.Float32bits(float32(lane)) })
	g.VSUBPS(count, s.position, s.position)
	s.step = i.get(g, float32(i.lanes))
	s.abs = i.get(g, math.Float32frombits(math.MaxInt32))
	return s
}

// eachRow generates a loop over the rows. The function before generates the code at the start of a row, and the
// function after the code at its end. The function body generates the code for a vector v of scores, which are computed
// from the values at the address at. The mask m selects the scores of the last vector; a nil mask selects all. There is
// a second, shorter loop for a slope of 0, which gives the same bits.
func (s *scoreRows) eachRow(g *generator, before func(), body func(v reg.VecVirtual, at Mem, m *mask), after func()) {
	zero := g.XMM()
	g.VXORPS(zero, zero, zero)
	g.VUCOMISS(zero, s.slope.AsX())
	g.JNE(LabelRef("sloped"))
	g.JP(LabelRef("sloped")) // the slope is NaN
	s.loop(g, "level", before, body, after, func(v reg.VecVirtual) {}, func() {})
	g.JMP(LabelRef("done"))
	g.Label("sloped")
	one := s.isa.get(g, 1)
	s.loop(g, "slope", func() {
		g.VMOVAPS(s.position, s.distance)
		before()
	}, body, after, func(v reg.VecVirtual) {
		d := s.isa.register(g)
		g.VANDPS(s.abs, s.distance, d)
		g.VFNMADD231PS(s.slope, d, v)
		g.VSUBPS(s.step, s.distance, s.distance)
	}, func() {
		g.VADDPS(one, s.position, s.position)
	})
	g.Label("done")
}

// loop generates one of the loops of eachRow. The function bias generates the code that changes a vector of scaled
// values, and the function next the code between two rows.
func (s *scoreRows) loop(g *generator, label string, before func(), body func(v reg.VecVirtual, at Mem, m *mask), after func(),
	bias func(v reg.VecVirtual), next func()) {
	n, p := g.GP64(), g.GP64()
	g.Label(label + "Row")
	g.Load(g.Param("n"), n)
	g.MOVQ(s.row, p)
	before()
	s.isa.eachVector(g, label, n, []reg.GPVirtual{p}, func(m *mask) {
		v := s.isa.load(g, Mem{Base: p}, nil)
		g.VMULPS(s.scale, v, v)
		bias(v)
		body(v, Mem{Base: p}, m)
	})
	after()
	next()
	g.ADDQ(s.ld, s.row)
	g.ADDQ(Imm(4), s.maxima)
	g.DECQ(s.rows)
	g.JNZ(LabelRef(label + "Row"))
}

// norms generates the functions of a LayerNorm: the statistics of a row, in float64, and the normalization.
func norms(g *generator, i isa) {
	half := func(from reg.GPVirtual, part int) reg.VecVirtual {
		v := i.register(g)
		g.VCVTPS2PD(Mem{Base: from, Disp: part * i.bytes() / 2}, v)
		return v
	}
	reduce := func(label string, n, x reg.GPVirtual, term func(v reg.VecVirtual, sum reg.VecVirtual)) reg.VecVirtual {
		sums := [2]reg.VecVirtual{i.register(g), i.register(g)}
		g.zero(sums[0])
		g.zero(sums[1])
		g.Label(label)
		for part, s := range sums {
			term(half(x, part), s)
		}
		g.ADDQ(Imm(uint64(i.bytes())), x)
		g.SUBQ(Imm(uint64(i.lanes)), n)
		g.JG(LabelRef(label))
		g.VADDPD(sums[1], sums[0], sums[0])
		return i.foldDoubles(g, sums[0])
	}

	g.function("sum"+i.name, "func(x *float32, n int) float64", "sum"+i.name+" adds n values, a positive multiple of the vector's length.")
	x, n := g.param("x"), g.param("n")
	g.Store(reduce("vector", n, x, func(v, sum reg.VecVirtual) { g.VADDPD(v, sum, sum) }), g.ReturnIndex(0))
	g.end()

	g.function("squares"+i.name, "func(x *float32, n int, mean float64) float64",
		"squares"+i.name+" adds (x − mean)² over n values, a positive multiple of the vector's length.")
	x, n = g.param("x"), g.param("n")
	mean := i.register(g)
	g.VBROADCASTSD(g.argument("mean"), mean)
	g.Store(reduce("vector", n, x, func(v, sum reg.VecVirtual) {
		g.VSUBPD(mean, v, v)
		g.VFMADD231PD(v, v, sum)
	}), g.ReturnIndex(0))
	g.end()

	g.function("standardize"+i.name, "func(x *float32, gain *float32, bias *float32, n int, mean float32, rest float32, scale float32)",
		"standardize"+i.name+" replaces n values x by (x − mean − rest) · scale · gain + bias.")
	x, n = g.param("x"), g.param("n")
	gain, bias := g.param("gain"), g.param("bias")
	middle, rest, scale := i.broadcast(g, "mean"), i.broadcast(g, "rest"), i.broadcast(g, "scale")
	i.eachVector(g, "vector", n, []reg.GPVirtual{x, gain, bias}, func(m *mask) {
		v, b := i.load(g, Mem{Base: x}, m), i.load(g, Mem{Base: bias}, m)
		g.VSUBPS(middle, v, v)
		g.VSUBPS(rest, v, v)
		g.VMULPS(scale, v, v)
		g.VFMADD231PS(i.load(g, Mem{Base: gain}, m), v, b)
		i.store(g, b, m, Mem{Base: x})
	})
	g.end()
}

// rotary generates the function that applies the rotary embedding to the neighbouring heads of one row.
func rotary(g *generator, i isa) {
	g.function("rotate"+i.name, "func(row *float32, cos *float32, sin *float32, half int, heads int, scale float32)",
		"rotate"+i.name+" scales and rotates heads of 2·half values each.")
	low, half, heads := g.param("row"), g.param("half"), g.param("heads")
	scale := i.broadcast(g, "scale")
	n, high, cos, sin := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.Label("head")
	g.MOVQ(half, n)
	g.LEAQ(Mem{Base: low, Index: half, Scale: 4}, high)
	g.Load(g.Param("cos"), cos)
	g.Load(g.Param("sin"), sin)
	i.eachVector(g, "vector", n, []reg.GPVirtual{low, high, cos, sin}, func(m *mask) {
		a, b := i.load(g, Mem{Base: low}, m), i.load(g, Mem{Base: high}, m)
		c, s := i.load(g, Mem{Base: cos}, m), i.load(g, Mem{Base: sin}, m)
		g.VMULPS(scale, a, a)
		g.VMULPS(scale, b, b)
		p, q := i.register(g), i.register(g)
		g.VMULPS(s, b, p)
		g.VMULPS(s, a, q)
		g.VFMSUB231PS(c, a, p)
		g.VFMADD231PS(c, b, q)
		i.store(g, p, m, Mem{Base: low})
		i.store(g, q, m, Mem{Base: high})
	})
	// low has advanced past the whole vectors; n lanes remain, and the second half of the head follows.
	g.LEAQ(Mem{Base: low, Index: n, Scale: 4}, low)
	g.LEAQ(Mem{Base: low, Index: half, Scale: 4}, low)
	g.DECQ(heads)
	g.JNZ(LabelRef("head"))
	g.end()
}
