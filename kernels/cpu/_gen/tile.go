package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// panelCols is the width of a panel. It must equal the constant in kernels/cpu.
const panelCols = 16

const tileSignature = "func(out *float32, ldout int, add *float32, ldadd int, bias *float32, a *float32, lda int, panel *float32, k int, ahead int, count int)"

// tiles generates kernels for each number of panels and for several numbers of rows, up to the largest for which all
// sums stay in registers.
func tiles(g *generator, i isa) {
	heights, panels := []int{1, 2, 3, 4, 5, 6}, 1
	if i.lanes == 16 {
		heights, panels = append(heights, 8, 12), 2
	}
	for _, rows := range heights {
		for n := range panels {
			tile(g, i, rows, n+1)
		}
	}
}

// tile generates a kernel for tiles of rows × panels·16 sums. The kernel's argument count is the number of tiles, which
// lie one below the other. Each sum has one accumulator and adds one FMA for each k, in order, so that its bits are the
// same in every kernel. In bfloat16 each element of A and of a panel is a pair of values: VDPBF16PS multiplies two
// pairs and adds both products to the sum.
func tile(g *generator, i isa, rows, panels int) {
	cols := panels * panelCols
	name := fmt.Sprintf("tile%dx%d%s", rows, cols, i.name)
	g.function(name, tileSignature, fmt.Sprintf("%s is a tileFunc for %s and %s.",
		name, number(rows, "row", "rows"), number(panels, "panel", "neighbouring panels")))
	lda := g.strideParam("lda")
	b := make([]reg.GPVirtual, panels)
	b[0] = g.param("panel")
	// ahead becomes the address to prefetch. It may be past the end of the matrix, where no Go pointer may point.
	ahead := g.param("ahead")
	g.ADDQ(b[0], ahead)
	// Each pointer serves three rows of A: the row at the pointer and the rows lda and 2·lda bytes after it.
	a := make([]reg.GPVirtual, (rows+2)/3)
	for p := range a {
		if p == 0 {
			a[0] = g.param("a")
			continue
		}
		a[p] = g.GP64()
		g.LEAQ(Mem{Base: a[p-1], Index: lda, Scale: 1}, a[p])
		g.LEAQ(Mem{Base: a[p], Index: lda, Scale: 2}, a[p])
	}

	g.Label("tile")
	k := g.param("k")
	g.Load(g.Param("panel"), b[0])
	if panels == 2 {
		b[1] = g.GP64()
		g.IMUL3Q(Imm(uint64(panelCols*4)), k, b[1])
		g.ADDQ(b[0], b[1])
	}
	// The result is prefetched while the sums are computed, so that the processor need not wait for it afterwards if it is
	// larger than the caches. Each unrolled step prefetches one row until none is left, because a burst of prefetches
	// would delay the loads of the panels. If k is below 64, prefetching would take longer than it saves.
	result, ldresult, left := g.param("out"), g.strideParam("ldout"), g.GP64()
	g.XORQ(left, left)
	g.CMPQ(k, Imm(64))
	g.JL(LabelRef("short"))
	g.MOVQ(I32(rows), left)
	g.Label("short")
	vectors := cols / i.lanes
	sums := make([][]reg.VecVirtual, rows)
	for r := range sums {
		for range vectors {
			v := i.register(g)
			g.zero(v)
			sums[r] = append(sums[r], v)
		}
	}
	right := make([]reg.VecVirtual, vectors)
	for v := range right {
		right[v] = i.register(g)
	}
	step := func(at int) {
		for v := range right {
			perPanel := panelCols / i.lanes
			g.VMOVUPS(Mem{Base: b[v/perPanel], Disp: (at*panelCols + v%perPanel*i.lanes) * 4}, right[v])
		}
		for r := range rows {
			left := i.register(g)
			m := Mem{Base: a[r/3], Disp: 4 * at}
			if r%3 > 0 {
				m.Index, m.Scale = lda, uint8(r%3)
			}
			g.VBROADCASTSS(m, left)
			for v := range right {
				g.VFMADD231PS(left, right[v], sums[r][v])
			}
		}
	}
	advance := func(n int) {
		for _, p := range b {
			g.ADDQ(I32(n*panelCols*4), p)
		}
		for _, p := range a {
			g.ADDQ(I32(4*n), p)
		}
	}

	// One cache line is prefetched for every two lines of a panel.
	const unroll, line = 4, 64
	prefetches := unroll * panelCols * 4 / line / 2
	g.SUBQ(Imm(unroll), k)
	g.JL(LabelRef("rest"))
	g.Label("unrolled")
	for u := range unroll {
		step(u)
		if u%2 == 0 && u/2 < prefetches {
			g.PREFETCHT1(Mem{Base: ahead, Disp: u / 2 * line})
		}
	}
	advance(unroll)
	g.DECQ(left)
	g.JL(LabelRef("fetched"))
	for p := range panels {
		g.PREFETCHT0(Mem{Base: result, Disp: p * panelCols * 4})
	}
	g.ADDQ(ldresult, result)
	g.Label("fetched")
	g.ADDQ(I32(prefetches*line), ahead)
	g.SUBQ(Imm(unroll), k)
	g.JGE(LabelRef("unrolled"))
	g.Label("rest")
	g.ADDQ(Imm(unroll), k)
	g.JZ(LabelRef("summed"))
	g.Label("single")
	step(0)
	advance(1)
	g.DECQ(k)
	g.JNZ(LabelRef("single"))

	g.Label("summed")
	bias := g.param("bias")
	g.TESTQ(bias, bias)
	g.JZ(LabelRef("unbiased"))
	for v := range right {
		g.VMOVUPS(Mem{Base: bias, Disp: v * i.bytes()}, right[v])
		for r := range rows {
			g.VADDPS(right[v], sums[r][v], sums[r][v])
		}
	}
	g.Label("unbiased")
	out, ldout := g.param("out"), g.strideParam("ldout")
	add, ldadd := g.param("add"), g.strideParam("ldadd")
	g.TESTQ(add, add)
	g.JZ(LabelRef("store"))
	for r := range rows {
		for v := range right {
			g.VADDPS(Mem{Base: add, Disp: v * i.bytes()}, sums[r][v], sums[r][v])
		}
		g.ADDQ(ldadd, add)
	}
	g.MOVQ(add, g.argument("add"))
	g.Label("store")
	for r := range rows {
		for v := range right {
			g.VMOVUPS(sums[r][v], Mem{Base: out, Disp: v * i.bytes()})
		}
		g.ADDQ(ldout, out)
	}
	g.MOVQ(out, g.argument("out"))

	// The next tile follows below. The pointers to A have advanced by k values.
	below := g.strideParam("k")
	next := g.GP64()
	g.IMUL3Q(Imm(uint64(rows)), lda, next)
	g.SUBQ(below, next)
	for _, p := range a {
		g.ADDQ(next, p)
	}
	g.DECQ(g.argument("count"))
	g.JNZ(LabelRef("tile"))
	g.end()
}

// number returns n with the noun in the singular or the plural.
func number(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
