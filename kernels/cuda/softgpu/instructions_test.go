//go:build linux

package softgpu

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstructions checks that translated instructions give the results that the PTX manual states. In many of its
// cases a plain C++ operator would give another result or has undefined behavior, for example in shifts by the width or
// more. Operands and results are 32-bit patterns.
func TestInstructions(t *testing.T) {
	const (
		nan, one, two, minusOne, minusTwo         = 0x7fc00000, 0x3f800000, 0x40000000, 0xbf800000, 0xc0000000
		minusZero, infinity, minusInfinity        = 0x80000000, 0x7f800000, 0xff800000
		subnormal, minusSubnormal                 = 0x00000001, 0x80000001
		tiny, minusTiny                           = 0x30800000, 0xb0800000 // 2^-30 and −2^-30
		belowOne                                  = 0x3f7fffff
		yes, no                            uint32 = 1, 0
	)
	const selects = " selp.b32 %r9, 1, 0, %p1;"
	const high = " shr.u64 %rd2, %rd2, 32; cvt.u32.u64 %r9, %rd2;"
	cases := []struct {
		code    string // instructions that set %r9 or %f9
		a, b, c uint32 // values of %r1 to %r3 and of %f1 to %f3
		want    uint32
	}{
		{"add.s32 %r9, %r1, %r2;", 0x7fffffff, 1, 0, 0x80000000},
		{"shl.b32 %r9, %r1, %r2;", 1, 31, 0, 0x80000000},
		{"shl.b32 %r9, %r1, %r2;", 1, 32, 0, 0},
		{"shr.u32 %r9, %r1, %r2;", 0x80000000, 31, 0, 1},
		{"shr.u32 %r9, %r1, %r2;", 0x80000000, 32, 0, 0},
		{"shr.s32 %r9, %r1, %r2;", 0x80000000, 40, 0, 0xffffffff},
		{"shr.s32 %r9, %r1, %r2;", 0x7fffffff, 40, 0, 0},
		{"bfi.b32 %r9, %r1, %r2, %r3, 4;", 0xff, 0, 4, 0xf0},
		{"bfi.b32 %r9, %r1, %r2, %r3, 8;", 0xffffffff, 3, 28, 0xf0000003},
		{"bfi.b32 %r9, %r1, %r2, %r3, 8;", 0xffffffff, 3, 32, 3},
		{"bfi.b32 %r9, %r1, %r2, %r3, 0;", 0xffffffff, 3, 0, 3},
		{"bfi.b32 %r9, %r1, %r2, %r3, 32;", 0x12345678, 3, 0, 0x12345678},
		{"mul.wide.s32 %rd2, %r1, %r2;" + high, 0xfffffffe, 3, 0, 0xffffffff},
		{"mul.wide.u32 %rd2, %r1, %r2;" + high, 0xfffffffe, 3, 0, 2},
		{"mul.hi.s32 %r9, %r1, %r2;", 0xfffffffe, 3, 0, 0xffffffff},
		{"mul.hi.u32 %r9, %r1, %r2;", 0xfffffffe, 3, 0, 2},
		{"div.s32 %r9, %r1, %r2;", 0xfffffff9, 2, 0, 0xfffffffd},
		{"rem.s32 %r9, %r1, %r2;", 0xfffffff9, 2, 0, 0xffffffff},
		{"div.u32 %r9, %r1, %r2;", 0xfffffff9, 2, 0, 0x7ffffffc},
		{"min.s32 %r9, %r1, %r2;", 0xffffffff, 1, 0, 0xffffffff},
		{"min.u32 %r9, %r1, %r2;", 0xffffffff, 1, 0, 1},
		{"abs.s32 %r9, %r1;", 0x80000000, 0, 0, 0x80000000},
		{"mov.b32 {%rs1, %rs2}, %r1; mov.b32 %r9, {%rs2, %rs1};", 0x12345678, 0, 0, 0x56781234},
		{"cvt.u16.u32 %rs1, %r1; cvt.s32.s16 %r9, %rs1;", 0x18000, 0, 0, 0xffff8000},
		{"cvt.u16.u32 %rs1, %r1; cvt.u32.u16 %r9, %rs1;", 0x18000, 0, 0, 0x8000},
		{"cvt.s64.s32 %rd2, %r1;" + high, 0x80000000, 0, 0, 0xffffffff},
		{"cvt.u64.u32 %rd2, %r1;" + high, 0x80000000, 0, 0, 0},
		{"cvt.rn.f32.s32 %f9, %r1;", 16777217, 0, 0, 0x4b800000},
		{"cvt.rn.f32.s32 %f9, %r1;", 0xffffffff, 0, 0, minusOne},
		{"cvt.rn.f32.u32 %f9, %r1;", 0xffffffff, 0, 0, 0x4f800000},

		{"setp.lt.s32 %p1, %r1, %r2;" + selects, 0xffffffff, 1, 0, yes},
		{"setp.lt.u32 %p1, %r1, %r2;" + selects, 0xffffffff, 1, 0, no},
		{"setp.lt.f32 %p1, %f1, %f2;" + selects, nan, one, 0, no},
		{"setp.ge.f32 %p1, %f1, %f2;" + selects, nan, one, 0, no},
		{"setp.eq.f32 %p1, %f1, %f2;" + selects, nan, nan, 0, no},
		{"setp.eq.f32 %p1, %f1, %f2;" + selects, minusZero, 0, 0, yes},
		{"setp.ltu.f32 %p1, %f1, %f2;" + selects, nan, one, 0, yes},
		{"setp.ltu.f32 %p1, %f1, %f2;" + selects, two, one, 0, no},
		{"setp.geu.f32 %p1, %f1, %f2;" + selects, one, nan, 0, yes},
		{"setp.neu.f32 %p1, %f1, %f2;" + selects, nan, nan, 0, yes},

		{"min.f32 %f9, %f1, %f2;", nan, one, 0, one},
		{"min.f32 %f9, %f1, %f2;", one, nan, 0, one},
		{"min.f32 %f9, %f1, %f2;", minusZero, 0, 0, minusZero},
		{"min.f32 %f9, %f1, %f2;", 0, minusZero, 0, minusZero},
		{"max.f32 %f9, %f1, %f2;", nan, minusInfinity, 0, minusInfinity},
		{"max.f32 %f9, %f1, %f2;", one, nan, 0, one},
		{"max.f32 %f9, %f1, %f2;", minusZero, 0, 0, 0},
		{"max.f32 %f9, %f1, %f2;", 0, minusZero, 0, 0},
		{"neg.f32 %f9, %f1;", 0, 0, 0, minusZero},
		{"copysign.f32 %f9, %f1, %f2;", minusOne, two, 0, minusTwo},
		{"fma.rn.f32 %f9, %f1, %f2, %f3;", 0x3f800800, 0x3f800800, 0xbf801000, 0x33800000}, // only the sum is rounded
		{"fma.rn.f32 %f9, %f1, %f2, %f3;", one, one, minusTiny, one},
		{"fma.rm.f32 %f9, %f1, %f2, %f3;", one, one, minusTiny, belowOne},
		{"fma.rm.f32 %f9, %f1, %f2, %f3;", one, one, tiny, one},
		{"ex2.approx.ftz.f32 %f9, %f1;", subnormal, 0, 0, one},
		{"ex2.approx.ftz.f32 %f9, %f1;", 0xc2fe0000, 0, 0, 0}, // 2^-127 is subnormal and becomes 0
		{"ex2.approx.ftz.f32 %f9, %f1;", minusInfinity, 0, 0, 0},
		{"rcp.approx.ftz.f32 %f9, %f1;", subnormal, 0, 0, infinity},
		{"rcp.approx.ftz.f32 %f9, %f1;", minusSubnormal, 0, 0, minusInfinity},
		{"cvt.sat.f32.f32 %f9, %f1;", nan, 0, 0, 0},
		{"cvt.sat.f32.f32 %f9, %f1;", two, 0, 0, one},
		{"cvt.sat.f32.f32 %f9, %f1;", minusOne, 0, 0, 0},

		{"cvt.rn.bf16x2.f32 %r9, %f1, %f2;", one, two, 0, 0x3f804000}, // the first operand is the upper half
		{"cvt.rn.bf16x2.f32 %r9, %f1, %f2;", 0x3f808000, 0x3f818000, 0, 0x3f803f82},
		{"cvt.rn.bf16x2.f32 %r9, %f1, %f2;", nan, 0x7f7fffff, 0, 0x7fff7f80},
		{"cvt.rn.f16x2.f32 %r9, %f1, %f2;", one, two, 0, 0x3c004000},
		{"cvt.rn.f16x2.f32 %r9, %f1, %f2;", 0x3f801000, 0x3f803000, 0, 0x3c003c02},
		{"cvt.rn.f16x2.f32 %r9, %f1, %f2;", 0x477fe000, 0x477ff000, 0, 0x7bff7c00}, // 65504 fits, 65520 overflows
		{"cvt.rn.f16x2.f32 %r9, %f1, %f2;", 0x33800000, 0x33000000, 0, 0x00010000}, // 2^-24 fits, 2^-25 becomes 0
		{"mov.b32 {%rs1, %rs2}, %r1; cvt.f32.f16 %f9, %rs1;", 0x3c000001, 0, 0, 0x33800000},
	}

	var code strings.Builder
	for i, c := range cases {
		for n, v := range []uint32{c.a, c.b, c.c} {
			fmt.Fprintf(&code, "mov.u32 %%r%d, %d; mov.b32 %%f%d, %%r%d;\n", n+1, int32(v), n+1, n+1)
		}
		result, kind := "%r9", "u32"
		if strings.Contains(c.code, "%f9") {
			result, kind = "%f9", "f32"
		}
		fmt.Fprintf(&code, "%s\nst.global.%s [%%rd1+%d], %s;\n", c.code, kind, 4*i, result)
	}
	text := strings.Replace(small("ld.param.u64 %rd1, [small_param_0];\n"+code.String()), "entry small(", "entry values(", 1)
	text = strings.NewReplacer("%f<3>", "%f<10>", "%r<3>", "%r<10>").Replace(text)
	file := filepath.Join(t.TempDir(), "values.ptx")
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Build(folder(t), text); err != nil {
		t.Fatal(err)
	}
	t.Setenv(ptxVariable, file)
	out, message := runKernel(t, "values", 0)
	if len(out) < len(cases) {
		t.Fatal(message)
	}
	for i, c := range cases {
		if got := math.Float32bits(out[i]); got != c.want {
			t.Errorf("%s of %#x, %#x, %#x is %#x, want %#x", c.code, c.a, c.b, c.c, got, c.want)
		}
	}
}
