//go:build amd64 && !noasm

package cpu

import "unsafe"

func narrowAVX512(out []uint16, in []float32) {
	whole := len(in) &^ 15
	if whole > 0 {
		narrowBF16(&out[:whole][0], &in[0], whole)
	}
	narrow(out[whole:], in[whole:])
}

func packPairsAVX512(p *panels, values []uint16, ld, n int) {
	if p.cols%panelCols != 0 {
		packPairs(p, values, ld, n)
		return
	}
	_ = values[(n-1)*ld+p.cols-1]
	for k := range p.blocks() {
		from, to := p.block(k)
		whole := min(to, n/2) - from
		for i := range p.count {
			panel := p.panel(k, i)
			column := values[2*from*ld+i*panelCols:]
			if whole > 0 {
				pairRowsBF16((*uint32)(unsafe.Pointer(&panel[0])), &column[0], ld, whole)
			}
			if from+whole < to { // the number of rows is odd: the last one is paired with zeros
				row := halves(panel[whole*panelCols:][:panelCols])
				clear(row)
				for c, v := range column[2*whole*ld:][:panelCols] {
					row[2*c] = v
				}
			}
		}
	}
}
