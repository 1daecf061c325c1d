package store

import (
	"encoding/binary"
	"io"
	"math"

	"seqembed/internal/half"
)

// floatWriter writes float32 values as little-endian values of the type dtype.
type floatWriter struct {
	dtype DType
	chunk []byte
}

func (w *floatWriter) write(to io.Writer, values []float32) error {
	const chunkValues = 8192 // their bytes, at most 32 KiB, fit in the first-level data cache
	for len(values) > 0 {
		n := min(len(values), chunkValues)
		w.chunk = appendFloats(w.chunk[:0], w.dtype, values[:n])
		if _, err := to.Write(w.chunk); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

func appendFloats(dst []byte, dtype DType, values []float32) []byte {
	if dtype == FP16 {
		for _, v := range values {
			dst = binary.LittleEndian.AppendUint16(dst, half.ToFP16(v))
		}
		return dst
	}
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}

// appendLetters appends the first and the last letter of each residue as little-endian int32.
func appendLetters(dst []byte, residues []Letters) []byte {
	for _, l := range residues {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(l.First))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(l.Last))
	}
	return dst
}
