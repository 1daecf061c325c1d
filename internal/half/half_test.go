package half

import (
	"math"
	"math/rand/v2"
	"testing"
)

// format is a 16-bit format with the functions that convert values to it and from it.
type format struct {
	name string
	to   func(float32) uint16
	from func(uint16) float32
}

var (
	bf16 = format{"bfloat16", ToBF16, FromBF16}
	fp16 = format{"float16", ToFP16, FromFP16}
)

// TestRoundsToNearestEven checks that conversions to 16 bits round to nearest, and ties to even, for normal and
// subnormal values. Values out of range must become infinities.
func TestRoundsToNearestEven(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		format
		value float32
		want  uint16
	}{
		{bf16, 1, 0x3f80}, {bf16, -2, 0xc000}, {bf16, 0, 0}, {bf16, float32(math.Copysign(0, -1)), 0x8000},
		{bf16, 1 + 0x1p-8, 0x3f80}, {bf16, 1 + 3*0x1p-8, 0x3f82}, // ties: down, then up, to the even pattern
		{bf16, 1 + 0x1p-8 + 0x1p-23, 0x3f81}, {bf16, 1 + 0x1p-8 - 0x1p-23, 0x3f80},
		{bf16, math.MaxFloat32, 0x7f80}, {bf16, inf, 0x7f80}, {bf16, -inf, 0xff80},
		{bf16, 0x1p-133, 0x0001}, {bf16, 0x1p-134, 0x0000}, {bf16, 0x1p-134 + 0x1p-149, 0x0001}, // subnormals

		{fp16, 1, 0x3c00}, {fp16, -2, 0xc000}, {fp16, float32(math.Copysign(0, -1)), 0x8000},
		{fp16, 1 + 0x1p-11, 0x3c00}, {fp16, 1 + 3*0x1p-11, 0x3c02}, {fp16, 1 + 0x1p-11 + 0x1p-23, 0x3c01},
		{fp16, 65504, 0x7bff}, {fp16, 65519.996, 0x7bff}, {fp16, 65520, 0x7c00}, {fp16, 1e30, 0x7c00},
		{fp16, inf, 0x7c00}, {fp16, -inf, 0xfc00},
		{fp16, 0x1p-14, 0x0400}, {fp16, 0x1p-24, 0x0001}, {fp16, 0x1p-25, 0x0000}, // least normal, subnormals
		{fp16, 0x1p-25 + 0x1p-40, 0x0001}, {fp16, 3 * 0x1p-25, 0x0002},
	} {
		if got := c.to(c.value); got != c.want {
			t.Errorf("%s of %g is %#04x, want %#04x", c.name, c.value, got, c.want)
		}
	}
}

func TestNaNStays(t *testing.T) {
	for _, f := range []format{bf16, fp16} {
		for _, bits := range []uint32{0x7fc00000, 0xffc00000, 0x7f800001, 0x7fffffff, 0xffffffff} {
			if back := f.from(f.to(math.Float32frombits(bits))); back == back {
				t.Errorf("%s: the NaN %#x converts to %g", f.name, bits, back)
			}
		}
	}
}

// TestEveryPattern checks each of the 65,536 bit patterns of each 16-bit format. Converting a pattern to float32 and
// the result to 16 bits must give the same pattern, unless the pattern is a NaN. The value halfway between two adjacent
// finite patterns must be rounded to the even pattern. Random values must be rounded to the nearest pattern.
func TestEveryPattern(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, f := range []format{bf16, fp16} {
		for bits := range 1 << 16 {
			v := f.from(uint16(bits))
			if got := f.to(v); v == v && got != uint16(bits) {
				t.Fatalf("%s: %#04x converts to %g and back to %#04x", f.name, bits, v, got)
			}
			next := f.from(uint16(bits + 1))
			if math.IsInf(float64(v), 0) || v != v || math.IsInf(float64(next), 0) || next != next || bits == 0x7fff {
				continue
			}
			// A float32 holds the middle exactly. The middle needs at most one significant bit more than the format
			// has: 9 bits for bfloat16 and 12 for float16, and a float32 has 24.
			middle := float32((float64(v) + float64(next)) / 2)
			if got, even := f.to(middle), uint16(bits+bits&1); got != even {
				t.Fatalf("%s: %g, the middle of %g and %g, is rounded to %#04x", f.name, middle, v, next, got)
			}
		}
		for range 100_000 {
			v := float32(rng.NormFloat64() * math.Pow(2, float64(rng.IntN(30)-24)))
			bits := f.to(v)
			distance := func(bits uint16) float64 { return math.Abs(float64(f.from(bits)) - float64(v)) }
			for _, near := range []uint16{bits - 1, bits + 1} {
				if other := distance(near); other < distance(bits) || other == distance(bits) && bits&1 == 1 {
					t.Fatalf("%s: %g is rounded to %g, but %g is nearer", f.name, v, f.from(bits), f.from(near))
				}
			}
		}
	}
}
