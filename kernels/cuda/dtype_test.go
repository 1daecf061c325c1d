package cuda

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// TestEncodeRoundsToNearestEven pins the cases by which conversions go wrong.
func TestEncodeRoundsToNearestEven(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		dtype DType
		value float32
		want  uint16
	}{
		{BF16, 1, 0x3f80}, {BF16, -2, 0xc000}, {BF16, 0, 0}, {BF16, float32(math.Copysign(0, -1)), 0x8000},
		{BF16, 1 + 0x1p-8, 0x3f80}, {BF16, 1 + 3*0x1p-8, 0x3f82}, // ties, to even both ways
		{BF16, 1 + 0x1p-8 + 0x1p-23, 0x3f81}, {BF16, 1 + 0x1p-8 - 0x1p-23, 0x3f80},
		{BF16, math.MaxFloat32, 0x7f80}, {BF16, inf, 0x7f80}, {BF16, -inf, 0xff80},
		{BF16, 0x1p-133, 0x0001}, {BF16, 0x1p-134, 0x0000}, {BF16, 0x1p-134 + 0x1p-149, 0x0001}, // denormals

		{FP16, 1, 0x3c00}, {FP16, -2, 0xc000}, {FP16, float32(math.Copysign(0, -1)), 0x8000},
		{FP16, 1 + 0x1p-11, 0x3c00}, {FP16, 1 + 3*0x1p-11, 0x3c02}, {FP16, 1 + 0x1p-11 + 0x1p-23, 0x3c01},
		{FP16, 65504, 0x7bff}, {FP16, 65519.996, 0x7bff}, {FP16, 65520, 0x7c00}, {FP16, 1e30, 0x7c00}, {FP16, inf, 0x7c00}, {FP16, -inf, 0xfc00},
		{FP16, 0x1p-14, 0x0400}, {FP16, 0x1p-24, 0x0001}, {FP16, 0x1p-25, 0x0000}, {FP16, 0x1p-25 + 0x1p-40, 0x0001}, {FP16, 3 * 0x1p-25, 0x0002}, // denormals
	} {
		raw := make([]byte, 2)
		c.dtype.encode(raw, []float32{c.value})
		if got := binary.LittleEndian.Uint16(raw); got != c.want {
			t.Errorf("%s of %g is %#04x, not %#04x", c.dtype, c.value, got, c.want)
		}
	}
	for _, dtype := range []DType{BF16, FP16, FP32} {
		for _, bits := range []uint32{0x7fc00000, 0xffc00000, 0x7f800001, 0x7fffffff, math.Float32bits(nan)} {
			raw, back := make([]byte, 4), make([]float32, 1)
			dtype.encode(raw, []float32{math.Float32frombits(bits)})
			if dtype.decode(back, raw); back[0] == back[0] {
				t.Errorf("%s: the NaN %#x becomes %g", dtype, bits, back[0])
			}
		}
	}
}

// TestEveryHalfSurvives decodes and encodes all 65,536 patterns, and compares
// the rounding of random values with a search among the neighbours.
func TestEveryHalfSurvives(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, dtype := range []DType{BF16, FP16} {
		raw, value := make([]byte, 2), make([]float32, 1)
		at := func(bits uint16) float64 {
			binary.LittleEndian.PutUint16(raw, bits)
			dtype.decode(value, raw)
			return float64(value[0])
		}
		for bits := range 1 << 16 {
			v := at(uint16(bits))
			dtype.encode(raw, value)
			if got := binary.LittleEndian.Uint16(raw); v == v && got != uint16(bits) {
				t.Fatalf("%s: %#04x is %g, which is encoded as %#04x", dtype, bits, v, got)
			}
		}
		for range 100_000 {
			v := float32(rng.NormFloat64() * math.Pow(2, float64(rng.IntN(30)-24)))
			dtype.encode(raw, []float32{v})
			bits := binary.LittleEndian.Uint16(raw)
			err := math.Abs(at(bits) - float64(v))
			for _, near := range []uint16{bits - 1, bits + 1} {
				other := math.Abs(at(near) - float64(v))
				if other < err || other == err && bits&1 == 1 {
					t.Fatalf("%s: %g is rounded to %g, and %g is nearer", dtype, v, at(bits), at(near))
				}
			}
		}
	}
}
