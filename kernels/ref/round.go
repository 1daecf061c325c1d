package ref

import "math"

// Type is what the operands of products are rounded to.
type Type uint8

const (
	// Float32 rounds nothing more than the arithmetic does.
	Float32 Type = iota
	// BF16 is bfloat16: 8 bits of significand, the exponents of float32.
	BF16
	// FP16 is IEEE half precision: 11 bits of significand.
	FP16
)

// String gives the name in lower case.
func (t Type) String() string {
	return [...]string{"fp32", "bf16", "fp16"}[t]
}

// round gives the nearest value of a 16-bit type, of two as near the even one.
func (t Type) round(v float64) float64 {
	bits, least, most := 8, -133, 0x1.fep127
	if t == FP16 {
		bits, least, most = 11, -24, 65504
	}
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	_, e := math.Frexp(v)
	unit := math.Ldexp(1, max(e-bits, least))
	r := math.RoundToEven(v/unit) * unit
	if math.Abs(r) > most {
		return math.Inf(int(math.Copysign(1, v)))
	}
	return r
}

// Round rounds values in place and returns them.
func Round(t Type, values []float32) []float32 {
	if t != Float32 {
		for i, v := range values {
			values[i] = float32(t.round(float64(v)))
		}
	}
	return values
}
