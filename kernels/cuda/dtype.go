package cuda

import (
	"encoding/binary"
	"math"

	"seqembed/internal/half"
	"seqembed/kernels"
)

// sizeOf returns the size of a value of type t in bytes.
func sizeOf(t kernels.DType) int {
	if t == kernels.FP32 {
		return 4
	}
	return 2
}

// encode rounds values to type t and writes them to dst in little-endian order, as the device reads them.
func encode(t kernels.DType, dst []byte, values []float32) {
	switch t {
	case kernels.FP32:
		for i, v := range values {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case kernels.FP16:
		for i, v := range values {
			binary.LittleEndian.PutUint16(dst[2*i:], half.ToFP16(v))
		}
	default:
		for i, v := range values {
			binary.LittleEndian.PutUint16(dst[2*i:], half.ToBF16(v))
		}
	}
}

// pitch returns the number of elements from one row of a matrix to the next. It is a multiple of 8, so that rows begin
// at a multiple of 16 bytes in every type. The kernels compute the same pitch (src/README.md).
func pitch(cols int) int { return (cols + 7) &^ 7 }
