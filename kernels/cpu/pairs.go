package cpu

import (
	"math"

	"seqembed/internal/half"
)

// The functions in this file implement pairVariant in plain Go. narrowAll computes the same bits as the instruction
// BFCVTN of arm64, apart from the bits of NaN. All other functions compute the same bits as the instructions of
// AVX512_BF16, again apart from NaN. Their products are far slower than products in float32.

// tilePairs is a tileFunc for one panel of pairs. Like the instruction VDPBF16PS, it adds the second product of a pair
// before the first, rounds after each addition, and replaces denormal numbers by zero.
func tilePairs(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, _ int) {
	for r := range rows {
		var sums [panelCols]float32
		for i, word := range a[r*lda:][:k] {
			low, high := unpack(word)
			for c, b := range panel[i*panelCols:][:panelCols] {
				bLow, bHigh := unpack(b)
				sum := flushed(sums[c] + float32(high*bHigh))
				sums[c] = flushed(sum + float32(low*bLow))
			}
		}
		for c, sum := range sums {
			if bias != nil {
				sum += bias[c]
			}
			if add != nil {
				sum += add[r*ldadd+c]
			}
			out[r*ldout+c] = sum
		}
	}
}

// unpack returns the two values of a pair as float32, with denormal numbers replaced by zero.
func unpack(pair float32) (low, high float32) {
	bits := math.Float32bits(pair)
	return flushed(math.Float32frombits(bits << 16)), flushed(math.Float32frombits(bits &^ 0xffff))
}

// flushed returns x. If x is denormal, it returns a zero with the sign of x.
func flushed(x float32) float32 {
	if bits := math.Float32bits(x); bits&0x7f800000 == 0 {
		return math.Float32frombits(bits & 0x80000000)
	}
	return x
}

// narrow implements pairVariant.narrow in plain Go: it rounds the values to the nearest bfloat16, and denormal numbers
// to zero. It writes a zero after an odd number of values.
func narrow(out []uint16, in []float32) {
	for i, v := range in {
		out[i] = half.ToBF16(flushed(v))
	}
	if len(in)%2 > 0 {
		out[len(in)] = 0
	}
}

// narrowAll is narrow without the replacement of denormal numbers, like the instruction BFCVTN of arm64.
func narrowAll(out []uint16, in []float32) {
	for i, v := range in {
		out[i] = half.ToBF16(v)
	}
	if len(in)%2 > 0 {
		out[len(in)] = 0
	}
}

// packPairs implements pairVariant.packValues in plain Go: it packs n rows of bfloat16 values, which have stride ld, as
// panels of the matrix V. Two neighbouring rows become one row of pairs.
func packPairs(p *panels, values []uint16, ld, n int) {
	for k := range p.blocks() {
		from, to := p.block(k)
		for i := range p.count {
			panel := halves(p.panel(k, i))
			column := i * panelCols
			width := min(panelCols, p.cols-column)
			if width < panelCols || 2*to > n {
				clear(panel)
			}
			for j := 2 * from; j < min(2*to, n); j++ {
				row := panel[(j/2-from)*2*panelCols+j%2:]
				for c, v := range values[j*ld+column:][:width] {
					row[2*c] = v
				}
			}
		}
	}
}
