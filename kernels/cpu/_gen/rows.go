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

	g.function("scale"+i.name, "func(out *float32, in *float32, n int, factor float32)", "scale"+i.name+" sets n values of out to in · factor.")
	out, in, n := g.param("out"), g.param("in"), g.param("n")
	factor := i.broadcast(g, "factor")
	i.eachVector(g, "vector", n, []reg.GPVirtual{out, in}, func(m *mask) {
		v := i.load(g, Mem{Base: in}, m)
		g.VMULPS(factor, v, v)
		i.store(g, v, m, Mem{Base: out})
	})
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

// scores generates the two passes of a softmax. Both compute the scores from the row, so that no score is stored
// between the passes. Rows are padded to whole vectors.
func scores(g *generator, i isa) {
	type inputs struct{ scale, slope, distance, step, abs reg.VecVirtual }
	begin := func() (in inputs) {
		in = inputs{scale: i.broadcast(g, "scale"), slope: i.broadcast(g, "slope"), distance: i.broadcast(g, "position")}
		count := g.table("count", 16, func(lane int) uint32 { return math.Float32bits(float32(lane)) })
		g.VSUBPS(count, in.distance, in.distance)
		in.step = i.get(g, float32(i.lanes))
		in.abs = i.get(g, math.Float32frombits(math.MaxInt32))
		return in
	}
	score := func(in inputs, row reg.GPVirtual) reg.VecVirtual {
		v, d := i.load(g, Mem{Base: row}, nil), i.register(g)
		g.VMULPS(in.scale, v, v)
		g.VANDPS(in.abs, in.distance, d)
		g.VFNMADD231PS(in.slope, d, v)
		g.VSUBPS(in.step, in.distance, in.distance)
		return v
	}

	g.function("scoreMax"+i.name, "func(row *float32, n int, scale float32, slope float32, position float32) float32",
		"scoreMax"+i.name+" returns the largest of n scores row[j]·scale − slope·|position − j|.")
	row, n := g.param("row"), g.param("n")
	in := begin()
	maximum := i.get(g, float32(math.Inf(-1)))
	i.eachVector(g, "vector", n, []reg.GPVirtual{row}, func(m *mask) {
		v := score(in, row)
		switch {
		case m == nil:
			g.VMAXPS(v, maximum, maximum)
		case i.lanes == 16:
			g.VMAXPS(v, maximum, m.k, maximum)
		default:
			g.VBLENDVPS(m.v, v, maximum, v)
			g.VMAXPS(v, maximum, maximum)
		}
	})
	g.Store(i.foldFloats(g, maximum, func(a, b, to Op) { g.VMAXPS(a, b, to) }), g.ReturnIndex(0))
	g.end()

	g.function("scoreExp"+i.name, "func(row *float32, n int, scale float32, slope float32, position float32, maximum float32) float32",
		"scoreExp"+i.name+" replaces n scores, as in scoreMax"+i.name+", by e^(score − maximum) and returns their sum.")
	row, n = g.param("row"), g.param("n")
	in = begin()
	maximum = i.broadcast(g, "maximum")
	sum := i.register(g)
	g.zero(sum)
	i.eachVector(g, "vector", n, []reg.GPVirtual{row}, func(m *mask) {
		v := score(in, row)
		g.VSUBPS(maximum, v, v)
		e := i.exp(g, v)
		i.keep(g, e, m)
		g.VADDPS(e, sum, sum)
		i.store(g, e, nil, Mem{Base: row})
	})
	g.Store(i.foldFloats(g, sum, func(a, b, to Op) { g.VADDPS(a, b, to) }), g.ReturnIndex(0))
	g.end()
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
	b, err := g.Param("mean").Resolve()
	if err != nil {
		panic(err)
	}
	mean := i.register(g)
	g.VBROADCASTSD(b.Addr, mean)
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
