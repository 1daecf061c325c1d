package softgpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// small returns a PTX kernel that contains the given instruction.
func small(instruction string) string {
	return `.version 7.0
.target sm_80
.address_size 64
.visible .entry small(
	.param .u64 small_param_0
)
.maxntid 32, 1, 1
{
	.reg .pred 	%p<3>;
	.reg .b16 	%rs<3>;
	.reg .f32 	%f<3>;
	.reg .b32 	%r<3>;
	.reg .b64 	%rd<3>;
	` + instruction + `
	ret;
}
`
}

func TestTranslate(t *testing.T) {
	for instruction, want := range map[string]string{
		"add.s32 	%r1, %r2, -4;":                    "r1 = r2 + uint32_t(-4LL);",
		"fma.rn.f32 	%f1, %f2, %f1, 0f3F800000;":    "f1 = fmaf(f2, f1, bits_as<float>(0x3F800000u));",
		"setp.ltu.f32 	%p1, %f1, %f2;":              "p1 = !(f1 >= f2);",
		"setp.ge.s32 	%p1, %r1, %r2;":               "p1 = int32_t(r1) >= int32_t(r2);",
		"@!%p1 mov.u32 	%r1, %tid.x;":               "if (!p1) { r1 = uint32_t(t.tid.x); }",
		"ld.param.u64 	%rd1, [small_param_0];":      "rd1 = parameter<uint64_t>(slots[0]);",
		"ld.global.v2.f32 	{%f1, %f2}, [%rd1+-16];": "{ float v[2]; memcpy(v, t.global(rd1 + uint64_t(-16), 8), 8); f1 = v[0]; f2 = v[1]; }",
		"mov.b32 	%r1, {%rs1, %rs2};":               "{ const uint32_t v[2] = {rs1, rs2}; r1 = (v[0] | v[1] << 16); }",
		"mov.b32 	%f1, %r1;":                        "f1 = bits_as<float>(r1);",
		"$L__BB0_1: bra.uni 	$L__BB0_1;":            "goto L__BB0_1;",
	} {
		code, err := translate(small(instruction))
		if err != nil {
			t.Errorf("%s: %v", instruction, err)
		} else if !strings.Contains(code, want) {
			t.Errorf("%s: no %q in %s", instruction, want, code)
		}
	}
}

// TestProducts checks how many products of matrices at the beginning of a kernel a warp computes together.
func TestProducts(t *testing.T) {
	mma := func(kind, d, a, b, c string) string {
		return "mma.sync.aligned.m16n8k16.row.col.f32." + kind + "." + kind + ".f32 {" + d + "}, {" + a + "}, {" + b + "}, {" + c + "};\n"
	}
	const f1, f2, r1, r2 = "%f1, %f1, %f1, %f1", "%f2, %f2, %f2, %f2", "%r1, %r1, %r1, %r1", "%r2, %r2"
	first := mma("bf16", f1, r1, r2, f1)
	for text, want := range map[string]int{
		"": 0, first: 1, "@%p1 " + first: 0, first + "@%p1 " + first: 1,
		first + mma("bf16", f2, r1, r2, f2):                                                 2,
		first + mma("bf16", f2, r1, r2, "%f2, %f2, %f2, %f1"):                               1,
		mma("bf16", "%r2, %f1, %f1, %f1", r1, r2, f1) + mma("bf16", f2, r1, "%r1, %r2", f2): 1,
		first + mma("bf16", f2, r1, r2, f1):                                                 1, // f1 is the sum of the first
		mma("bf16", r1, r1, r2, f1) + mma("bf16", f2, r1, r2, f2):                           1,
		first + mma("f16", f2, r1, r2, f2):                                                  1,
		first + "add.s32 %r1, %r1, 1;\n" + mma("bf16", f2, r1, r2, f2):                      1,
		mma("bf16", f2, r1, r2, f1) + first:                                                 2, // reads f1 before it changes
		strings.Repeat(mma("bf16", f2, r1, r2, f1), mostProducts+1):                         mostProducts,
		first + "$L__BB0_1:\n" + mma("bf16", f2, r1, r2, f2) + "bra $L__BB0_1;\n":           1,
	} {
		m, err := parsePTX(small(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := products(m.kernels[0].body); got != want {
			t.Errorf("%d products are computed together, want %d:\n%s", got, want, text)
		}
	}
}

func TestTranslateRefuses(t *testing.T) {
	for instruction, says := range map[string]string{
		"frob.s32 	%r1, %r2;":                          "small, line 14: unknown instruction frob.s32",
		"add.s32 	%r1, %r2;":                           "add.s32 does not take 2 operands",
		"add.s32 	%r1, %r2, %q1;":                      "register %q1 is not declared",
		"add.s64 	%rd1, %r2, %rd2;":                    "%r2 has type u32, want u64",
		"add.f32 	%r1, %rd1, %f1;":                     "%rd1 has type u64, want f32",
		"bra 	$nowhere;":                               "undefined label $nowhere",
		"bar.sync 	1;":                                 "barrier 1 is not simulated",
		"ld.param.u32 	%r1, [small_param_0];":          "no parameter small_param_0 of type u32",
		"ld.global.nc.f32 	%f1, [%rd1];":               "unknown instruction ld.global.nc.f32",
		"ld.global.v2.f32 	{%f1}, [%rd1];":             "a vector of 1 elements, want 2",
		"setp.ne.f32 	%p1, %f1, %f2;":                  "unknown instruction setp.ne.f32",
		"ld.param 	%r1, [small_param_0];":              "unknown instruction ld.param",
		"cp.async.ca.shared.global 	[%r1], [%rd1], 4;": "unknown instruction",
		".shared .align 0 .b8 a[4];":                   "line 14: invalid alignment 0",
		"add.s32 	%r1, %r2, 1":                         "line 15", // the semicolon is missing
	} {
		if _, err := translate(small(instruction)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: want an error that contains %q, got %v", instruction, says, err)
		}
	}
	for _, text := range []string{"", ".version 7.0\n.global .u32 x;", "@", small("")[:200], strings.Replace(small(""), ".maxntid 32, 1, 1", "", 1)} {
		if code, err := translate(text); err == nil && strings.Contains(code, "static void") {
			t.Errorf("%q was translated", text)
		}
	}
}

// TestTranslateCommitted checks that the translation to C++ contains every kernel of the committed PTX.
func TestTranslateCommitted(t *testing.T) {
	files, err := filepath.Glob("../ptx/*.ptx")
	if err != nil || len(files) == 0 {
		t.Fatalf("no PTX: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code, err := translate(string(text))
		if err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if want, got := strings.Count(string(text), ".entry"), strings.Count(code, "static void "); got != want {
			t.Errorf("%s has %d kernels, but %d were translated", f, want, got)
		}
	}
}

func FuzzTranslate(f *testing.F) {
	f.Add(small("add.s32 	%r1, %r2, -4;"))
	f.Add(small("ld.global.v2.f32 	{%f1, %f2}, [%rd1+-16];"))
	f.Add(small(".shared .align 4 .b8 a[64]; @!%p1 setp.ltu.f32 	%p1, %f1, 0f3F800000;"))
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = translate(text) // must return a result or an error without panicking
	})
}
