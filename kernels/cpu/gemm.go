package cpu

import "seqembed/kernels"

const (
	// blockRows and blockPanels bound the part of an output that one task computes. A block of rows takes 147 KB for
	// each block of the inner dimension, and stays in the second-level cache for all the panels.
	blockRows   = 96
	blockPanels = 24
	// tasksPerWorker is how finely a product is cut at least, where its width allows that: who ends first then waits
	// for a small part of the whole.
	tasksPerWorker = 12
)

// product is one matrix product, Out = A·B + Bias + Add.
type product struct {
	out   []float32
	ldout int
	base  int // the panel whose columns are the first of out, bias and add
	a     []float32
	lda   int
	b     *panels
	bias  []float32 // or nil
	add   []float32 // or nil; may be out
	ldadd int
}

// compute runs a product for rows [row, row+rows) and panels [first, first+n). The columns of these panels have to
// exist in out, those past the last one too. Panels in bfloat16 are widened once for all the rows.
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
			panel := p.b.wide(v, s.scratch[worker].wide, k, first+i, width)
			v.tile(out[c:], p.ldout, addHere, ldadd, biasHere, a[from:], p.lda, rows, panel, to-from, width)
		}
	}
}

// linear gives what runs a product with a bias, an activation that is applied to each block in the cache, and a
// residual, or nil. Each element is read and written by one task alone, so that add may be out. scratch is memory for
// the product where scratchOf asks for it.
func (s *runner) linear(o kernels.Linear, out, in, add, scratch *matrix) func() {
	switch {
	case scratch != nil:
		return s.gatedApart(o, out, in, scratch)
	case o.Then == kernels.GEGLU:
		return s.gatedLinear(o, out, in)
	}
	return s.multiply(o, out, in, add)
}

// gatedApart writes the product to z and gates it from there.
func (s *runner) gatedApart(o kernels.Linear, out, in, z *matrix) func() {
	o.Then = kernels.Identity
	multiply := s.multiply(o, z, in, nil)
	gate := s.eachRow(func(t int) {
		s.variant.gate(out.row(t), z.row(t), z.row(t)[out.cols:])
	})
	return func() {
		multiply()
		gate()
	}
}

func (s *runner) multiply(o kernels.Linear, out, in, add *matrix) func() {
	p := productOf(o, out, in, add)
	whole := p.b.cols / panelCols
	return s.eachBlock(p.b.count, blockPanels, func(worker, row, rows, first, n int) {
		from, to := first*panelCols, min((first+n)*panelCols, out.cols)
		if first+n > whole {
			n--
			s.lastPanel(&p, worker, row, rows)
		}
		s.compute(worker, &p, row, rows, first, n)
		if o.Then == kernels.GELU {
			for r := range rows {
				s.variant.gelu(out.row(row + r)[from:to])
			}
		}
	})
}

// gatedLinear computes the same columns of both halves of a product in the worker's own memory, and writes the gated
// half.
func (s *runner) gatedLinear(o kernels.Linear, out, in *matrix) func() {
	p := productOf(o, out, in, nil)
	count := out.cols / panelCols
	return s.eachBlock(count, blockPanels/2, func(worker, row, rows, first, n int) {
		width := n * panelCols
		acc := s.scratch[worker].acc
		var halves [2][]float32
		for h := range halves {
			halves[h] = acc[h*rows*width:][:rows*width]
			panel := h*count + first
			half := product{out: halves[h], ldout: width, base: panel, a: p.a[row*p.lda:], lda: p.lda, b: p.b}
			if p.bias != nil {
				half.bias = p.bias[panel*panelCols:]
			}
			s.compute(worker, &half, 0, rows, panel, n)
		}
		for r := range rows {
			to := out.row(row + r)[first*panelCols:][:width]
			s.variant.gate(to, halves[0][r*width:], halves[1][r*width:])
		}
	})
}

func productOf(o kernels.Linear, out, in, add *matrix) product {
	p := product{out: out.at, ldout: out.cols, a: in.at, lda: in.cols, b: o.W.(*weight).packed}
	if o.Bias != nil {
		p.bias = o.Bias.(*weight).flat
	}
	if add != nil {
		p.add, p.ldadd = add.at, add.cols
	}
	return p
}

// eachBlock gives what cuts an output of one row a token and that many panels into tasks of at most blockRows rows and
// widest panels. Those that follow each other share their panels.
func (s *runner) eachBlock(count, widest int, do func(worker, row, rows, first, n int)) func() {
	var rows, rowBlocks, width int // of the batch
	task := func(worker, task int) {
		row, first := task%rowBlocks*blockRows, task/rowBlocks*width
		do(worker, row, min(blockRows, rows-row), first, min(width, count-first))
	}
	return func() {
		rows = len(s.batch.IDs)
		rowBlocks = (rows + blockRows - 1) / blockRows
		// How many panels of one block of rows make a tasksPerWorker-th of what a worker does in all; an even number,
		// for kernels that take two.
		share := rows * count / (min(rows, blockRows) * s.crew.size * tasksPerWorker)
		width = max(2, min(widest, share)&^1)
		s.crew.run(rowBlocks*((count+width-1)/width), task)
	}
}

// lastPanel computes the columns of a panel that is not full, whose columns past the last do not exist in the output.
func (s *runner) lastPanel(p *product, worker, row, rows int) {
	acc := s.scratch[worker].acc[:rows*panelCols]
	last := p.b.count - 1
	column := last * panelCols
	narrow := product{out: acc, ldout: panelCols, base: last, a: p.a[row*p.lda:], lda: p.lda, b: p.b}
	s.compute(worker, &narrow, 0, rows, last, 1)
	for r := range rows {
		sum := acc[r*panelCols:][:p.b.cols-column]
		if p.bias != nil {
			s.variant.add(sum, p.bias[column:])
		}
		if p.add != nil {
			s.variant.add(sum, p.add[(row+r)*p.ldadd+column:])
		}
		copy(p.out[(row+r)*p.ldout+column:], sum)
	}
}
