package ref

import (
	"math"

	"seqembed/kernels"
)

// round returns v rounded to bfloat16 (8 bits of significand, the exponent range of float32) or float16 (11 bits of
// significand). It rounds to nearest, ties to even; too large values become infinities.
func round(t kernels.DType, v float64) float64 {
	bits, least, most := 8, -133, 0x1.fep127
	if t == kernels.FP16 {
		bits, least, most = 11, -24, 65504
	}
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	e := int(math.Float64bits(v)>>52&0x7ff) - 1022 // as math.Frexp returns it, but faster; subnormals are below least
	unit := math.Float64frombits(uint64(max(e-bits, least)+1023) << 52)
	r := math.RoundToEven(v/unit) * unit
	if math.Abs(r) > most {
		return math.Inf(int(math.Copysign(1, v)))
	}
	return r
}

// Round rounds values to t in place and returns them.
func Round(t kernels.DType, values []float32) []float32 {
	if t != kernels.FP32 {
		for i, v := range values {
			values[i] = float32(round(t, float64(v)))
		}
	}
	return values
}
