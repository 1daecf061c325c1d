package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// packs generates the functions that pack panels, and the conversion of bfloat16 to float32. Vectors wider than those
// of AVX2 would gain nothing.
func packs(g *generator) {
	g.function("transpose8AVX2", "func(panel *float32, rows *float32, ld int, count int, k int)",
		"transpose8AVX2 writes the first k values, a positive multiple of 8, of 8 rows as 8 columns of a panel. Rows from count on repeat the last row.")
	panel, ld, count, k := g.param("panel"), g.strideParam("ld"), g.param("count"), g.param("k")
	row := make([]reg.GPVirtual, 8)
	ahead := rowsAhead(g, ld)
	zero := g.GP64()
	g.XORQ(zero, zero)
	for r := range row {
		if r == 0 {
			row[0] = g.param("rows")
			continue
		}
		g.CMPQ(count, Imm(uint64(r)))
		g.CMOVQLE(zero, ld) // from row count on the stride is 0, so row count−1 is read again
		row[r] = g.GP64()
		g.LEAQ(Mem{Base: row[r-1], Index: ld, Scale: 1}, row[r])
	}
	g.Label("block")
	in := make([]reg.VecVirtual, 8)
	for r := range in {
		in[r] = g.YMM()
		g.PREFETCHT0(Mem{Base: row[r], Index: ahead, Scale: 1})
		g.VMOVUPS(Mem{Base: row[r]}, in[r])
		g.ADDQ(Imm(32), row[r])
	}
	var pairs, fours [8]reg.VecVirtual
	for r := 0; r < 8; r += 2 {
		pairs[r], pairs[r+1] = g.YMM(), g.YMM()
		g.VUNPCKLPS(in[r+1], in[r], pairs[r])
		g.VUNPCKHPS(in[r+1], in[r], pairs[r+1])
	}
	for r := 0; r < 8; r += 4 {
		for c := range 2 {
			fours[r+2*c], fours[r+2*c+1] = g.YMM(), g.YMM()
			g.VSHUFPS(Imm(0x44), pairs[r+2+c], pairs[r+c], fours[r+2*c])
			g.VSHUFPS(Imm(0xee), pairs[r+2+c], pairs[r+c], fours[r+2*c+1])
		}
	}
	for c := range 8 {
		v := g.YMM()
		g.VPERM2F128(Imm(uint64(0x20+c/4*0x11)), fours[4+c%4], fours[c%4], v)
		g.VMOVUPS(v, Mem{Base: panel, Disp: 4 * panelCols * c})
	}
	g.ADDQ(I32(8*4*panelCols), panel)
	g.SUBQ(Imm(8), k)
	g.JG(LabelRef("block"))
	g.end()

	g.function("copy16AVX2", "func(panel *float32, rows *float32, ld int, count int)", "copy16AVX2 writes 16 values each of count rows to a panel.")
	to, from, stride, n := g.param("panel"), g.param("rows"), g.strideParam("ld"), g.param("count")
	ahead = rowsAhead(g, stride)
	g.Label("row")
	a, b := g.YMM(), g.YMM()
	g.PREFETCHT0(Mem{Base: from, Index: ahead, Scale: 1})
	g.VMOVUPS(Mem{Base: from}, a)
	g.VMOVUPS(Mem{Base: from, Disp: 32}, b)
	g.VMOVUPS(a, Mem{Base: to})
	g.VMOVUPS(b, Mem{Base: to, Disp: 32})
	g.ADDQ(Imm(64), to)
	g.ADDQ(stride, from)
	g.DECQ(n)
	g.JNZ(LabelRef("row"))
	g.end()
	g.function("widenAVX2", "func(out *float32, half *uint16, n int)", "widenAVX2 writes n bfloat16 values, a positive multiple of 16, as float32.")
	to, from, n = g.param("out"), g.param("half"), g.param("n")
	next := g.GP64() // address to prefetch, which may be past the end of the matrix
	g.LEAQ(Mem{Base: from, Index: n, Scale: 2}, next)
	g.Label("values")
	g.PREFETCHT1(Mem{Base: next})
	for part := range 2 {
		v := g.YMM()
		g.VPMOVZXWD(Mem{Base: from, Disp: 16 * part}, v)
		g.VPSLLD(Imm(16), v, v)
		g.VMOVUPS(v, Mem{Base: to, Disp: 32 * part})
	}
	g.ADDQ(Imm(32), from)
	g.ADDQ(Imm(32), next)
	g.ADDQ(Imm(64), to)
	g.SUBQ(Imm(16), n)
	g.JG(LabelRef("values"))
	g.end()
}

// rowsAhead returns the distance in bytes to the row that the packing functions prefetch, 32 rows ahead. Rows usually
// lie in different pages, so the processor does not prefetch them by itself.
func rowsAhead(g *generator, ld reg.GPVirtual) reg.GPVirtual {
	ahead := g.GP64()
	g.MOVQ(ld, ahead)
	g.SHLQ(Imm(5), ahead)
	return ahead
}
