package cpu

import "seqembed/kernels"

const (
	// blockRows and blockPanels bound the part of an output that one task
	// computes: its accumulators take 147 KB of the second-level cache.
	blockRows   = 96
	blockPanels = 24
)

// accumulate computes acc [rows, panels·16] = A · B for the panels
// [first, first+n) of B. A has lda values a row and acc ldacc.
func accumulate(acc []float32, ldacc int, a []float32, lda, rows int, b *panels, first, n int) {
	for k := range b.blocks() {
		from, _ := b.block(k)
		for p := range n {
			tile(acc[p*panelCols:], ldacc, a[from:], lda, rows, b.panel(k, first+p), k > 0)
		}
	}
}

// linear runs Out = In·Wᵀ + Bias + Add. The output is cut into blocks of rows
// and panels; each is summed in the worker's own accumulators, so that Add
// may be Out.
func (s *stream) linear(o kernels.Linear) {
	in, out := of(o.In), of(o.Out)
	w := o.W.(*weight).packed
	t := len(s.batch.IDs)
	rowBlocks := (t + blockRows - 1) / blockRows
	columnBlocks := (w.count + blockPanels - 1) / blockPanels
	s.crew.run(rowBlocks*columnBlocks, func(worker, task int) {
		row, panel := task%rowBlocks*blockRows, task/rowBlocks*blockPanels
		rows, n := min(blockRows, t-row), min(blockPanels, w.count-panel)
		acc, ldacc := s.scratch[worker].acc, n*panelCols
		accumulate(acc, ldacc, in.at[row*in.cols:], in.cols, rows, w, panel, n)
		column := panel * panelCols
		width := min(ldacc, out.cols-column)
		for r := range rows {
			sum := acc[r*ldacc:][:width]
			if o.Bias != nil {
				addTo(sum, o.Bias.(*weight).flat[column:])
			}
			if o.Add != nil {
				addTo(sum, of(o.Add).row(row + r)[column:])
			}
			copy(out.row(row + r)[column:], sum)
		}
	})
}

// addTo adds the first len(dst) values of src to dst.
func addTo(dst, src []float32) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] += v
	}
}
