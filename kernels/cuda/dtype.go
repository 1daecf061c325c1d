package cuda

import (
	"encoding/binary"
	"math"

	convert "seqembed/internal/half"
	"seqembed/kernels"
)

// DType is the type of weights and matrix operands, a kernels.DType that knows its form in a device's memory. The
// residual stream is float32 with every one of them.
type DType kernels.DType

// The types by the names of kernels. Auto is BF16: every device that the package accepts has it.
const (
	Auto = DType(kernels.Auto)
	BF16 = DType(kernels.BF16)
	FP16 = DType(kernels.FP16)
	FP32 = DType(kernels.FP32)
)

// String gives the name that --dtype takes, which is also the end of the names of the kernels of that type.
func (t DType) String() string { return kernels.DType(t).String() }

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
			binary.LittleEndian.PutUint16(dst[2*i:], convert.ToFP16(v))
		}
	default:
		for i, v := range values {
			binary.LittleEndian.PutUint16(dst[2*i:], convert.ToBF16(v))
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
			values[i] = convert.FromFP16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		for i := range values {
			values[i] = convert.FromBF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// pitch is the elements from one row of a matrix to the next, as
// src/README.md fixes it: rows begin on 16 bytes in every type.
func pitch(cols int) int { return (cols + 7) &^ 7 }
