package cpu

import "seqembed/kernels"

// A Linear is held back until the next call: when that activates or gates the
// product, it does so block by block while the block is in the cache, and a
// gated product is never written to memory at all. The bits are the same.

func (s *stream) Linear(o kernels.Linear) {
	if s.accepts(o) {
		s.held = &o
	}
}

// flush runs the Linear that is held back.
func (s *stream) flush() {
	if o := s.take(); o != nil {
		defer s.clock(*o)()
		s.linear(*o, false)
	}
}

// take gives the Linear that is held back, and nothing when an error came
// after it.
func (s *stream) take() *kernels.Linear {
	o := s.held
	s.held = nil
	if s.err != nil {
		return nil
	}
	return o
}

func (s *stream) Activate(o kernels.Activate) {
	if !s.fits(o) {
		return
	}
	if s.held != nil && s.held.Out == o.X {
		held := s.take()
		defer s.clock(*held, o)()
		s.linear(*held, true)
		return
	}
	s.flush()
	defer s.clock(o)()
	s.eachRow(func(_, t int) { s.variant.gelu(of(o.X).row(t)) })
}

func (s *stream) Gate(o kernels.Gate) {
	if !s.fits(o) {
		return
	}
	if s.held != nil && gates(*s.held, o) {
		held := s.take()
		defer s.clock(*held, o)()
		s.gatedLinear(*held, of(o.Out))
		return
	}
	s.flush()
	defer s.clock(o)()
	s.eachRow(func(_, t int) {
		out, in := of(o.Out).row(t), of(o.In).row(t)
		s.variant.gate(out, in, in[len(out):])
	})
}

// gates reports whether the two can be fused: the halves have to begin with a
// panel, and the output must not lie over what the product still reads.
func gates(l kernels.Linear, g kernels.Gate) bool {
	out := of(g.Out)
	return l.Out == g.In && l.Add == nil && out.cols%panelCols == 0 && &out.at[0] != &of(l.In).at[0]
}

// gatedLinear computes the same columns of both halves of a product in the
// worker's own memory, and writes the gated half.
func (s *stream) gatedLinear(o kernels.Linear, out *buffer) {
	p := productOf(o)
	count := out.cols / panelCols
	s.eachBlock(len(s.batch.IDs), count, blockPanels/2, func(worker, row, rows, first, n int) {
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
			half.compute(s.variant, 0, rows, panel, n)
		}
		for r := range rows {
			to := out.row(row + r)[first*panelCols:][:width]
			s.variant.gate(to, halves[0][r*width:], halves[1][r*width:])
		}
	})
}
