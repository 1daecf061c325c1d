package main

import "fmt"

// Go's assembler lacks most of the instructions for vectors of floating-point values. The missing instructions are
// written as machine words, with the instruction in GNU's syntax in a comment. TestWords compares word and comment by
// means of a disassembler. The disassembler does not know the instructions of FEAT_BF16; the tests of kernels/cpu
// execute them. The encodings are those of the Arm Architecture Reference Manual, section C7.2.

// Instructions with three registers, for four float32 values.
const (
	fadd  = 0x4e20d400
	fsub  = 0x4ea0d400
	fmul  = 0x6e20dc00
	fdiv  = 0x6e20fc00
	fmax  = 0x4e20f400
	fmin  = 0x4ea0f400
	fmla  = 0x4e20cc00 // to += a·b
	fmls  = 0x4ea0cc00 // to −= a·b
	faddp = 0x6e20d400 // adds neighbouring lanes: first the lanes of a, then the lanes of b
)

// double is the bit that makes an instruction with three registers work on two float64 values.
const double = 1 << 22

var names = map[uint32]string{
	fadd: "fadd", fsub: "fsub", fmul: "fmul", fdiv: "fdiv", fmax: "fmax", fmin: "fmin", fmla: "fmla", fmls: "fmls", faddp: "faddp",
}

func (g *generator) word(code uint32, format string, args ...any) {
	g.op("WORD $0x%08x // %s", code, fmt.Sprintf(format, args...))
}

// three writes an instruction with three registers.
func (g *generator) three(code uint32, to, a, b vec) {
	shape := "4s"
	if code&double != 0 {
		shape = "2d"
	}
	g.word(code|uint32(to|a<<5|b<<16), "%s v%d.%[5]s, v%[3]d.%[5]s, v%[4]d.%[5]s", names[code&^double], to, a, b, shape)
}

// fmlaLane multiplies the register a by one lane of the register b and adds the product to the register to.
func (g *generator) fmlaLane(to, a, b vec, lane int) {
	g.word(0x4f801000|uint32(to)|uint32(a)<<5|uint32(b)<<16|uint32(lane&1)<<21|uint32(lane>>1)<<11,
		"fmla v%d.4s, v%d.4s, v%d.s[%d]", to, a, b, lane)
}

func (g *generator) fabs(to, a vec) {
	g.word(0x4ea0f800|uint32(to|a<<5), "fabs v%d.4s, v%d.4s", to, a)
}

// fmaxv writes the maximum of all lanes of the register a to the first lane of the register to.
func (g *generator) fmaxv(to, a vec) {
	g.word(0x6e30f800|uint32(to|a<<5), "fmaxv s%d, v%d.4s", to, a)
}

// widen converts the lower two float32 values of a to float64 or, if upper is set, the upper two.
func (g *generator) widen(to, a vec, upper bool) {
	if upper {
		g.word(0x4e617800|uint32(to|a<<5), "fcvtl2 v%d.2d, v%d.4s", to, a)
		return
	}
	g.word(0x0e617800|uint32(to|a<<5), "fcvtl v%d.2d, v%d.2s", to, a)
}

// bfmmla multiplies the matrix a [2, 4] by the transpose of the matrix b [2, 4], both in bfloat16. It adds the product
// to the float32 matrix [2, 2] in the register to.
func (g *generator) bfmmla(to, a, b vec) {
	g.word(0x6e40ec00|uint32(to|a<<5|b<<16), "bfmmla v%d.4s, v%d.8h, v%d.8h", to, a, b)
}

// bfcvtn rounds the float32 values of a to the nearest bfloat16. It writes them to the lower half of the destination
// register or, if upper is set, to the upper half.
func (g *generator) bfcvtn(to, a vec, upper bool) {
	if upper {
		g.word(0x4ea16800|uint32(to|a<<5), "bfcvtn2 v%d.8h, v%d.4s", to, a)
		return
	}
	g.word(0x0ea16800|uint32(to|a<<5), "bfcvtn v%d.4h, v%d.4s", to, a)
}
