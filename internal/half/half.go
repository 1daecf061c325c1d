// Package half converts float32 values to and from the 16-bit formats bfloat16 and float16.
//
// Conversions to 16 bits round to nearest, ties to even. A NaN stays a NaN, and values out of range become infinities.
// Conversions to float32 are exact.
package half

import (
	"math"

	"github.com/x448/float16"
)

// ToBF16 rounds v to bfloat16, the upper half of a float32: its sign, its exponent and 7 bits of its fraction.
func ToBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // sets a fraction bit, because the upper half alone could be an infinity
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// FromBF16 converts a bfloat16 to float32.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// ToFP16 rounds v to float16, the half precision of IEEE 754.
func ToFP16(v float32) uint16 { return float16.Fromfloat32(v).Bits() }

// FromFP16 converts a float16 to float32.
func FromFP16(b uint16) float32 { return float16.Frombits(b).Float32() }
