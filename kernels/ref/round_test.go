package ref

import (
	"math"
	"math/rand/v2"
	"testing"

	"seqembed/internal/half"
	"seqembed/kernels"
)

// TestRound compares rounding to bfloat16 and to float16 with package half, for random values of every exponent and for
// values halfway between two neighbours.
func TestRound(t *testing.T) {
	check := func(v float32) {
		for dtype, want := range map[kernels.DType]float32{
			kernels.BF16: half.FromBF16(half.ToBF16(v)), kernels.FP16: half.FromFP16(half.ToFP16(v))} {
			if got := Round(dtype, []float32{v})[0]; math.Float32bits(got) != math.Float32bits(want) && (got == got || want == want) {
				t.Errorf("%g rounds to %g in %s, want %g", v, got, dtype, want)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for exponent := range uint32(256) {
		for range 200 {
			bits := exponent<<23 | rng.Uint32()&0x807f_ffff
			check(math.Float32frombits(bits))
			check(math.Float32frombits(bits&^0xffff | 0x8000)) // halfway for bfloat16
			check(math.Float32frombits(bits&^0x1fff | 0x1000)) // halfway for normal numbers of float16
		}
	}
	check(0)
	check(float32(math.Copysign(0, -1)))
}
