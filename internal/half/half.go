// Package half converts float32 values to the two formats of 16 bits, bfloat16 and float16, and back.
//
// Conversions to 16 bits round to the nearest value, of two as near to the even one; a NaN stays one, and what is too
// large becomes an infinity. Conversions to float32 are exact. The package must not know what the values mean.
package half

import (
	"math"

	"github.com/x448/float16"
)

// ToBF16 rounds to bfloat16, which is the upper half of a float32: its sign, its exponent and 7 bits of its fraction.
func ToBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // the upper half alone could be an infinity
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// FromBF16 widens a bfloat16.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// ToFP16 rounds to float16, the half precision of IEEE 754.
func ToFP16(v float32) uint16 { return float16.Fromfloat32(v).Bits() }

// FromFP16 widens a float16.
func FromFP16(b uint16) float32 { return float16.Frombits(b).Float32() }
