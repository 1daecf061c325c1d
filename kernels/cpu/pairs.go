package cpu

import (
	"math"

	"seqembed/internal/half"
)

// The functions in this file are the portable pairVariant. They compute what the instructions of AVX512_BF16 do, bit by
// bit, and are far slower than float32.

// tilePairs is a tileFunc for one panel of pairs. Like VDPBF16PS, it adds the second product of a pair before the
// first, rounds after each, and replaces denormal numbers by zero.
func tilePairs(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, _ int) {
	for r := range rows {
		row := a[r*lda:][:k]
		for c := range panelCols {
			sum := float32(0)
			for i, x := range row {
				a, b := math.Float32bits(x), math.Float32bits(panel[i*panelCols+c])
				sum = addProduct(sum, a>>16, b>>16)
				sum = addProduct(sum, a&0xffff, b&0xffff)
			}
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

// addProduct returns sum + a·b for bfloat16 a and b, whose product is exact in float32.
func addProduct(sum float32, a, b uint32) float32 {
	return flushed(sum + float32(flushed(half.FromBF16(uint16(a)))*flushed(half.FromBF16(uint16(b)))))
}

// flushed returns x, or a zero with its sign if x is denormal.
func flushed(x float32) float32 {
	if bits := math.Float32bits(x); bits&0x7f800000 == 0 {
		return math.Float32frombits(bits & 0x80000000)
	}
	return x
}

// narrow is the portable pairVariant.narrow.
func narrow(out []uint16, in []float32) {
	for i, v := range in {
		out[i] = half.ToBF16(flushed(v))
	}
	if len(in)%2 > 0 {
		out[len(in)] = 0
	}
}

// packPairs is the portable pairVariant.packValues.
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
