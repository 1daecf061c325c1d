package cpu

import "seqembed/internal/half"

const (
	// panelCols is the width of a panel: two AVX2 vectors of float32, one of AVX-512.
	panelCols = 16
	// blockK is the length of a block along the inner dimension. A panel of one block takes 24 KB, and stays in the
	// first-level cache while it meets row after row; the two that AVX-512 takes at once come from the second level,
	// fast enough. It fixes the order of summation.
	blockK = 384
	// maxPanels is the largest number of panels that a variant takes at once.
	maxPanels = 2
)

// panels is the right-hand matrix B [inner, cols] of a product, packed: for each block of blockK inner rows, for each
// panel of 16 columns, the block's rows one after the other, 16 values each. Columns past the last are zero.
type panels struct {
	cols, inner int
	count       int // panels across: cols/16, rounded up
	at          []float32
	half        []uint16 // instead of at: the values as bfloat16
}

// newPanels lays the matrix out; the memory is the caller's to give.
func newPanels(cols, inner int) *panels {
	return &panels{cols: cols, inner: inner, count: (cols + panelCols - 1) / panelCols}
}

// size is the number of values in memory.
func (p *panels) size() int { return p.count * panelCols * p.inner }

// blocks is the number of blocks along the inner dimension.
func (p *panels) blocks() int { return (p.inner + blockK - 1) / blockK }

// block gives the inner rows [from, to) of block k.
func (p *panels) block(k int) (from, to int) {
	return k * blockK, min((k+1)*blockK, p.inner)
}

// panel is one panel of block k, [rows of the block, 16].
func (p *panels) panel(k, index int) []float32 {
	from, to := p.block(k)
	return p.at[p.start(k, index):][:(to-from)*panelCols]
}

// start is where that panel begins. The next panel follows it.
func (p *panels) start(k, index int) int {
	from, to := p.block(k)
	return (from*p.count + index*(to-from)) * panelCols
}

// fill packs a panel from the rows of Bᵀ that it covers, ld values apart.
func (p *panels) fill(index int, rows []float32, ld int) {
	n := min(panelCols, p.cols-index*panelCols)
	for k := range p.blocks() {
		from, to := p.block(k)
		panel := p.panel(k, index)
		if n < panelCols {
			clear(panel)
		}
		for c := range n {
			for i, v := range rows[c*ld+from : c*ld+to] {
				panel[i*panelCols+c] = v
			}
		}
	}
}

// fillHalf packs a panel as fill does, into zeros, rounding the values.
func (p *panels) fillHalf(index int, rows []float32, ld int) {
	for k := range p.blocks() {
		from, to := p.block(k)
		panel := p.half[p.start(k, index):]
		for c := range min(panelCols, p.cols-index*panelCols) {
			for i, v := range rows[c*ld+from : c*ld+to] {
				panel[i*panelCols+c] = half.ToBF16(v)
			}
		}
	}
}

// wide gives n neighbouring panels of block k as float32: where they are, or widened into scratch.
func (p *panels) wide(v *variant, scratch []float32, k, index, n int) []float32 {
	from, to := p.block(k)
	start, size := p.start(k, index), n*(to-from)*panelCols
	if p.half == nil {
		return p.at[start:][:size]
	}
	v.widen(scratch[:size], p.half[start:])
	return scratch[:size]
}

// widen is the portable one of a variant.
func widen(out []float32, bf16 []uint16) {
	for i, b := range bf16[:len(out)] {
		out[i] = half.FromBF16(b)
	}
}
