package cuda

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"seqembed/internal/half"
	"seqembed/kernels"
)

// decode is the inverse of encode.
func decode(t kernels.DType, values []float32, src []byte) {
	for i := range values {
		switch t {
		case kernels.FP32:
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		case kernels.FP16:
			values[i] = half.FromFP16(binary.LittleEndian.Uint16(src[2*i:]))
		default:
			values[i] = half.FromBF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// TestEncode checks that encode writes the little-endian bytes of each type, and that decode restores the values.
func TestEncode(t *testing.T) {
	for dtype, want := range map[kernels.DType][]byte{
		kernels.FP32: {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}, kernels.BF16: {0x80, 0x3f, 0, 0xc0}, kernels.FP16: {0, 0x3c, 0, 0xc0},
	} {
		raw, back := make([]byte, 2*sizeOf(dtype)), make([]float32, 2)
		encode(dtype, raw, []float32{1, -2})
		if decode(dtype, back, raw); !bytes.Equal(raw, want) || back[0] != 1 || back[1] != -2 {
			t.Errorf("%s: 1 and -2 become %x, and that %v", dtype, raw, back)
		}
	}
}
