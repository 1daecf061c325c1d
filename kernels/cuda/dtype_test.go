package cuda

import (
	"bytes"
	"testing"
)

// TestEncode: values lie in memory as the device reads them, and decode gives them back.
func TestEncode(t *testing.T) {
	for dtype, want := range map[DType][]byte{
		FP32: {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}, BF16: {0x80, 0x3f, 0, 0xc0}, FP16: {0, 0x3c, 0, 0xc0},
	} {
		raw, back := make([]byte, 2*dtype.size()), make([]float32, 2)
		dtype.encode(raw, []float32{1, -2})
		if dtype.decode(back, raw); !bytes.Equal(raw, want) || back[0] != 1 || back[1] != -2 {
			t.Errorf("%s: 1 and -2 become %x, and that %v", dtype, raw, back)
		}
	}
}
