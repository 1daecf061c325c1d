package cpu

import "math"

// A bfloat16 is the upper half of a float32: its sign, its exponent and 7 bits
// of its fraction.

// toBF16 rounds to the nearest bfloat16, of two as near to the even one.
func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40 // a NaN whose upper half is infinite otherwise
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func fromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// tileBF16Portable is a tileFunc for one panel. It widens the panel first,
// which is little beside the products with rows enough.
func tileBF16Portable(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []uint16, k, n int) {
	var wide [blockK * panelCols]float32
	for i, b := range panel[:k*panelCols] {
		wide[i] = fromBF16(b)
	}
	tilePortable(out, ldout, add, ldadd, bias, a, lda, rows, wide[:k*panelCols], k, n)
}
