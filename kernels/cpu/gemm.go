package cpu

import "seqembed/kernels"

const (
	// blockRows and blockPanels bound the part of an output that one task computes. In each block of the inner
	// dimension, blockRows rows take 147 KB. They stay in the second-level cache while the task multiplies them by all
	// its panels.
	blockRows   = 96
	blockPanels = 24
	// tasksPerWorker is the minimum number of tasks per worker, if a product or an attention is large enough. With many
	// small tasks the fastest worker idles only briefly at the end.
	tasksPerWorker = 12
)

// product is one matrix product, Out = A·B + Bias + Add. The rows of A and the panels of B consist of words: each is a
// float32, or a pair of bfloat16 values.
type product struct {
	out   []float32
	ldout int
	base  int // index of the panel whose columns come first in out, bias and add
	a     []float32
	lda   int // stride of the rows of a, in words
	b     *panels
	bias  []float32 // may be nil
	add   []float32 // may be nil, or out
	ldadd int
}

// compute computes rows [row, row+rows) and panels [first, first+n) of a product. out must have room for all columns of
// these panels, including the padding of the last panel. If the panels are stored as bfloat16, compute converts each
// panel to float32 once, for all rows.
func (s *runner) compute(worker int, p *product, row, rows, first, n int) {
	v := s.variant
	out := p.out[row*p.ldout:]
	a := p.a[row*p.lda:]
	for k := range p.b.blocks() {
		from, to := p.b.block(k)
		add, ldadd, bias := out, p.ldout, []float32(nil)
		if k == 0 {
			add, ldadd, bias = nil, p.ldadd, p.bias
			if p.add != nil {
				add = p.add[row*p.ldadd:]
			}
		}
		for i := 0; i < n; i += v.panels {
			width := min(v.panels, n-i)
			c := (first + i - p.base) * panelCols
			addHere, biasHere := add, bias
			if add != nil {
				addHere = add[c:]
			}
			if bias != nil {
				biasHere = bias[c:]
			}
			panel := p.b.float32s(v, s.scratch[worker].converted, k, first+i, width)
			s.tile(out[c:], p.ldout, addHere, ldadd, biasHere, a[from:], p.lda, rows, panel, to-from, width)
		}
	}
}

// linear returns a function that runs a Linear. The activation is applied to each block while it is in the cache. The
// exception is a gated product for which scratchOf asks for workspace: it is first written to scratch as a whole. For
// all other products scratch is nil. The matrix add may be the matrix out, because only one task reads and writes each
// element.
func (s *runner) linear(o kernels.Linear, out, in, add, scratch *matrix) (func(), error) {
	apply, gate, err := s.variant.activation(o.Then)
	switch {
	case gate == nil:
		return s.multiply(o, apply, out, in, add), err
	case scratch != nil:
		return s.unfusedGated(o, gate, out, in, scratch), nil
	}
	return s.gatedLinear(o, gate, out, in), nil
}

// unfusedGated returns a function that writes the whole product to z before it applies the gate.
func (s *runner) unfusedGated(o kernels.Linear, gate func(out, in, up []float32), out, in, z *matrix) func() {
	multiply := s.multiply(o, nil, z, in, nil)
	gateRows := s.eachRow(func(worker, t int) {
		row := s.scratch[worker].float32Row(out, t)
		gate(row, z.row(t), z.row(t)[out.cols:])
		s.variant.round(out, t, 0, row)
	})
	return func() {
		multiply()
		gateRows()
	}
}

func (s *runner) multiply(o kernels.Linear, apply func(x []float32), out, in, add *matrix) func() {
	p := productOf(o, out, in, add)
	if out.at == nil {
		return s.multiplyRounded(&p, apply, out)
	}
	return s.eachBlock(p.b.count, blockPanels, func(worker, row, rows, first, n int) {
		from, to := first*panelCols, min((first+n)*panelCols, out.cols)
		s.compute(worker, &p, row, rows, first, n)
		for r := range rows {
			if apply != nil {
				apply(out.row(row + r)[from:to])
			}
			s.variant.round(out, row+r, from, out.row(row + r)[from:to])
		}
	})
}

// multiplyRounded does the same as multiply, for a result that is stored only as bfloat16. Each task computes its block
// in the worker's own memory.
func (s *runner) multiplyRounded(p *product, apply func(x []float32), out *matrix) func() {
	return s.eachBlock(p.b.count, blockPanels, func(worker, row, rows, first, n int) {
		from, to := first*panelCols, min((first+n)*panelCols, out.cols)
		acc := s.scratch[worker].acc
		s.compute(worker, p.part(acc, row, first, n), 0, rows, first, n)
		for r := range rows {
			sums := acc[r*n*panelCols:][:to-from]
			if p.add != nil {
				s.variant.add(sums, p.add[(row+r)*p.ldadd+from:])
			}
			if apply != nil {
				apply(sums)
			}
			s.variant.round(out, row+r, from, sums)
		}
	})
}

// part returns a part of the product, without Add: panels [first, first+n) of all rows from the index row on. The
// output of the part is acc, whose rows are n panels wide.
func (p *product) part(acc []float32, row, first, n int) *product {
	part := product{out: acc, ldout: n * panelCols, base: first, a: p.a[row*p.lda:], lda: p.lda, b: p.b}
	if p.bias != nil {
		part.bias = p.bias[first*panelCols:]
	}
	return &part
}

// gatedLinear returns a function that computes a gated product without storing it. Each task computes the same columns
// of both halves of the product in the worker's own memory and writes only the gated result.
func (s *runner) gatedLinear(o kernels.Linear, gate func(out, in, up []float32), out, in *matrix) func() {
	p := productOf(o, out, in, nil)
	count := out.cols / panelCols
	return s.eachBlock(count, blockPanels/2, func(worker, row, rows, first, n int) {
		width := n * panelCols
		acc := s.scratch[worker].acc
		var halves [2][]float32
		for h := range halves {
			halves[h] = acc[h*rows*width:][:rows*width]
			panel := h*count + first
			s.compute(worker, p.part(halves[h], row, panel, n), 0, rows, panel, n)
		}
		for r := range rows {
			gated := halves[0][r*width:][:width]
			if out.at != nil {
				gated = out.row(row + r)[first*panelCols:][:width]
			}
			gate(gated, halves[0][r*width:], halves[1][r*width:])
			s.variant.round(out, row+r, first*panelCols, gated)
		}
	})
}

func productOf(o kernels.Linear, out, in, add *matrix) product {
	p := product{out: out.at, ldout: stride(out.cols), b: o.W.(*weight).packed}
	p.a, p.lda = in.operand()
	if o.Bias != nil {
		flat := o.Bias.(*weight).flat
		p.bias = flat[:cap(flat)] // the bias with the padding of its last panel
	}
	if add != nil {
		p.add, p.ldadd = add.at, stride(add.cols)
	}
	return p
}

// eachBlock returns a function that divides an output into tasks and calls do for each task. The output has one row per
// token, and count is its number of panels. A task has at most blockRows rows. The parameter widest is the largest
// number of panels in a task. Tasks with the same panels are consecutive.
func (s *runner) eachBlock(count, widest int, do func(worker, row, rows, first, n int)) func() {
	var rows, rowBlocks, width int // values for the current batch
	task := func(worker, task int) {
		row, first := task%rowBlocks*blockRows, task/rowBlocks*width
		do(worker, row, min(blockRows, rows-row), first, min(width, count-first))
	}
	return func() {
		rows = len(s.batch.IDs)
		rowBlocks = (rows + blockRows - 1) / blockRows
		// share is the number of panels in a task with which each worker gets tasksPerWorker tasks. width is even,
		// because some kernels process two panels.
		share := rows * count / (min(rows, blockRows) * s.workers.size * tasksPerWorker)
		width = max(2, min(widest, share)&^1)
		s.workers.run(rowBlocks*((count+width-1)/width), task)
	}
}
