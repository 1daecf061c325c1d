package cpu

import "seqembed/internal/half"

const (
	// panelCols is the width of a panel: two AVX2 vectors of float32, or one AVX-512 vector.
	panelCols = 16
	// blockK is the length of a block along the inner dimension. It determines the order of summation. A panel of one
	// block takes 24 KB, so it stays in the first-level cache while row after row is multiplied by it. AVX-512
	// processes two panels together. They come from the second-level cache, which is fast enough.
	blockK = 384
	// maxPanels is the largest number of panels that a variant processes together.
	maxPanels = 2
)

// panels is the packed right-hand matrix B [inner, cols] of a product. For each block of blockK inner rows and each
// panel of 16 columns, it stores the block's rows one after the other, 16 values each. Padding columns contain zeros;
// for keys of an attention they may contain copies of the last key instead. Each value is a word: a float32, or a pair
// of bfloat16 from inner rows 2i and 2i+1. For pairs, inner counts pairs of rows.
type panels struct {
	cols, inner int
	count       int // number of panels: cols/16, rounded up
	at          []float32
	half        []uint16 // single bfloat16 values, if the weights are stored so; the field at is nil then
}

// newPanels returns the layout of a matrix. The caller provides the memory.
func newPanels(cols, inner int) *panels {
	return &panels{cols: cols, inner: inner, count: (cols + panelCols - 1) / panelCols}
}

// size returns the number of values, including padding.
func (p *panels) size() int { return p.count * panelCols * p.inner }

// blocks returns the number of blocks along the inner dimension.
func (p *panels) blocks() int { return (p.inner + blockK - 1) / blockK }

// block returns the range [from, to) of inner rows in block k.
func (p *panels) block(k int) (from, to int) {
	return k * blockK, min((k+1)*blockK, p.inner)
}

// panel returns one panel of block k, [rows of the block, 16].
func (p *panels) panel(k, index int) []float32 {
	from, to := p.block(k)
	return p.at[p.start(k, index):][:(to-from)*panelCols]
}

// start returns the offset of the panel with this index in block k. The next panel follows it.
func (p *panels) start(k, index int) int {
	from, to := p.block(k)
	return (from*p.count + index*(to-from)) * panelCols
}

// fill packs the panel with this index. rows contains the rows of Bᵀ that the panel covers, with stride ld.
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

// fillHalf packs one panel like fill, but rounds the values to bfloat16. Before the call the panel must contain only
// zeros.
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

// fillPairs packs one panel like fill, but rounds the values to bfloat16. The values of inner rows 2i and 2i+1 become
// one word. Before the call the panel must contain only zeros.
func (p *panels) fillPairs(index int, rows []float32, ld int) {
	for k := range p.blocks() {
		from, to := p.block(k)
		panel := halves(p.panel(k, index))
		for c := range min(panelCols, p.cols-index*panelCols) {
			for i, v := range rows[c*ld+2*from : min(c*ld+2*to, (c+1)*ld)] {
				panel[i/2*2*panelCols+2*c+i%2] = half.ToBF16(v)
			}
		}
	}
}

// float32s returns n neighbouring panels of block k as float32. It converts bfloat16 panels into scratch.
func (p *panels) float32s(v *variant, scratch []float32, k, index, n int) []float32 {
	from, to := p.block(k)
	start, size := p.start(k, index), n*(to-from)*panelCols
	if p.half == nil {
		return p.at[start:][:size]
	}
	v.widen(scratch[:size], p.half[start:])
	return scratch[:size]
}

// widen implements variant.widen in plain Go: it converts len(out) bfloat16 values to float32.
func widen(out []float32, bf16 []uint16) {
	for i, b := range bf16[:len(out)] {
		out[i] = half.FromBF16(b)
	}
}
