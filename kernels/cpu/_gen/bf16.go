package main

import (
	"fmt"
	"regexp"
	"strconv"

	. "github.com/mmcloughlin/avo/operand"
)

// Neither Go's assembler nor avo has the instructions of AVX512_BF16. Kernels of the instruction set bf16 are therefore
// generated with another instruction that has operands of the same kind. In the text, encodeBF16 replaces that
// instruction by the bytes of the right one:
//
//	VFMADD231PS a, b, c  →  VDPBF16PS a, b, c: adds the products of two pairs of bfloat16 to each float32 of c
//	VPMOVDW a, b         →  VCVTNEPS2BF16 a, b: rounds the float32 of a to the nearest bfloat16
var placeholder = regexp.MustCompile(`(?m)^\t(VFMADD231PS +Z(\d+), Z(\d+), Z(\d+)|VPMOVDW +Z(\d+), Y(\d+))$`)

func encodeBF16(text []byte) []byte {
	return placeholder.ReplaceAllFunc(text, func(line []byte) []byte {
		var n [7]int
		for i, group := range placeholder.FindSubmatch(line) {
			n[i], _ = strconv.Atoi(string(group))
		}
		name, code := fmt.Sprintf("VDPBF16PS Z%d, Z%d, Z%d", n[2], n[3], n[4]), evex(0x52, n[4], n[3], n[2])
		if line[2] == 'P' {
			name, code = fmt.Sprintf("VCVTNEPS2BF16 Z%d, Y%d", n[5], n[6]), evex(0x72, n[6], 0, n[5])
		}
		return fmt.Appendf(nil, "\tLONG $0x%02x%02x%02x%02x; WORD $0x%02x%02x // %s",
			code[3], code[2], code[1], code[0], code[5], code[4], name)
	})
}

// evex encodes an instruction of opcode map 0F38 with prefix F3 and W = 0, on 512-bit registers and without a mask
// (Intel's manual, volume 2, section 2.7). Registers are numbered from 0 to 31; an instruction with one source has
// second = 0.
func evex(opcode byte, to, second, from int) [6]byte {
	// inverted returns the complement of a bit of a register number, shifted to its place in the encoding.
	inverted := func(register, bit, place int) byte { return byte(^register >> bit & 1 << place) }
	return [6]byte{
		0x62,
		inverted(to, 3, 7) | inverted(from, 4, 6) | inverted(from, 3, 5) | inverted(to, 4, 4) | 0b010,
		byte(^second&15<<3) | 0b110,
		0b10<<5 | inverted(second, 4, 3),
		opcode,
		0b11<<6 | byte(to&7<<3) | byte(from&7),
	}
}

// packsBF16 generates the functions that round values to bfloat16 and that pack bfloat16 values.
func packsBF16(g *generator) {
	g.function("narrowBF16", "func(out *uint16, in *float32, n int)",
		"narrowBF16 rounds n values, a positive multiple of 16, to the nearest bfloat16. out may be the memory of in.")
	to, from, n := g.param("out"), g.param("in"), g.param("n")
	g.Label("values")
	v, half := g.ZMM(), g.YMM()
	g.VMOVUPS(Mem{Base: from}, v)
	g.VPMOVDW(v, half)
	g.VMOVDQU(half, Mem{Base: to})
	g.ADDQ(Imm(64), from)
	g.ADDQ(Imm(32), to)
	g.SUBQ(Imm(16), n)
	g.JG(LabelRef("values"))
	g.end()

	g.function("pairRowsBF16", "func(panel *uint32, rows *uint16, ld int, count int)",
		"pairRowsBF16 writes count pairs of rows of 16 values, of stride ld, as rows of 16 pairs.")
	panel, rows, ld, count := g.param("panel"), g.param("rows"), g.param("ld"), g.param("count")
	g.ADDQ(ld, ld) // stride in bytes
	g.Label("pair")
	first, second := g.ZMM(), g.ZMM()
	g.VPMOVZXWD(Mem{Base: rows}, first)
	g.VPMOVZXWD(Mem{Base: rows, Index: ld, Scale: 1}, second)
	g.VPSLLD(Imm(16), second, second)
	g.VPORD(first, second, second)
	g.VMOVDQU32(second, Mem{Base: panel})
	g.LEAQ(Mem{Base: rows, Index: ld, Scale: 2}, rows)
	g.ADDQ(Imm(64), panel)
	g.DECQ(count)
	g.JNZ(LabelRef("pair"))
	g.end()
}
