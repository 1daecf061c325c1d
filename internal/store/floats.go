package store

import (
	"encoding/binary"
	"io"
	"math"
)

// floatWriter writes float32 values as little-endian bytes.
type floatWriter struct{ chunk []byte }

func (w *floatWriter) write(to io.Writer, values []float32) error {
	const chunkValues = 8192 // 32 KiB, which fits in the first-level cache
	for len(values) > 0 {
		n := min(len(values), chunkValues)
		w.chunk = appendFloats(w.chunk[:0], values[:n])
		if _, err := to.Write(w.chunk); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

func appendFloats(dst []byte, values []float32) []byte {
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
