package cuda

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// DType is the type of weights and matrix operands. The residual stream is
// float32 with every one of them.
type DType uint8

const (
	// Auto is BF16: every device that the package accepts has it.
	Auto DType = iota
	// BF16 is bfloat16.
	BF16
	// FP16 is IEEE half precision.
	FP16
	// FP32 is float32, without TF32.
	FP32
)

// String gives the name that --dtype takes, which is also the end of the
// names of the kernels of that type.
func (t DType) String() string {
	switch t {
	case BF16:
		return "bf16"
	case FP16:
		return "fp16"
	case FP32:
		return "fp32"
	}
	return "auto"
}

// ParseDType reads a --dtype value.
func ParseDType(s string) (DType, error) {
	for _, t := range []DType{Auto, BF16, FP16, FP32} {
		if t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("dtype %q is none of auto, bf16, fp16, fp32", s)
}

// size is the bytes of one value.
func (t DType) size() int {
	if t == FP32 {
		return 4
	}
	return 2
}

// encode writes values in the device's type, rounded to nearest, ties to
// even; what is too large for FP16 becomes an infinity, and a NaN stays one.
func (t DType) encode(dst []byte, values []float32) {
	switch t {
	case FP32:
		for i, v := range values {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case FP16:
		for i, v := range values {
			binary.LittleEndian.PutUint16(dst[2*i:], uint16(float16.Fromfloat32(v)))
		}
	default:
		for i, v := range values {
			binary.LittleEndian.PutUint16(dst[2*i:], bfloat16(v))
		}
	}
}

// decode reads what encode wrote.
func (t DType) decode(values []float32, src []byte) {
	switch t {
	case FP32:
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case FP16:
		for i := range values {
			values[i] = float16.Frombits(binary.LittleEndian.Uint16(src[2*i:])).Float32()
		}
	default:
		for i := range values {
			values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	}
}

// bfloat16 rounds to nearest, ties to even.
func bfloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // rounding could carry a NaN into an infinity
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// pitch is the elements from one row of a matrix to the next, as
// src/README.md fixes it: rows begin on 16 bytes in every type.
func pitch(cols int) int { return (cols + 7) &^ 7 }
