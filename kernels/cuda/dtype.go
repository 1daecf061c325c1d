package cuda

import (
	"encoding/binary"
	"math"

	"seqembed/internal/half"
	"seqembed/kernels"
)

// sizeOf is the bytes of a value of a type.
func sizeOf(t kernels.DType) int {
	if t == kernels.FP32 {
		return 4
	}
	return 2
}

// encode writes values as a device reads them. Package half says how they are rounded to 16 bits.
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

// pitch is the elements from one row of a matrix to the next, as src/README.md fixes it: rows begin on 16 bytes in
// every type.
func pitch(cols int) int { return (cols + 7) &^ 7 }
