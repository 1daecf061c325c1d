package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// follow is what is done to a product before it is written.
type follow uint8

const (
	nothing follow = iota
	gelu           // the output's own GELU
	geglu          // the gate of the two halves, to another buffer
)

// product is a Linear with what follows it.
type product struct {
	kernels.Linear
	follow follow
	to     *buffer // where the result goes: Linear.Out, or Gate.Out
	rows   int
}

// Linear holds the product back until the next call, which may be an
// activation that the same kernel can apply.
func (s *stream) Linear(o kernels.Linear) {
	s.flush()
	if s.accepts(o) {
		s.held = &o
	}
}

// flush sends what is held back.
func (s *stream) flush() {
	if o := s.turning; o != nil {
		s.turning = nil
		s.rotate(o)
	}
	if o := s.held; o != nil {
		s.held = nil
		s.send(product{*o, nothing, of(o.Out), s.rows()}, *o)
	}
}

// Activate joins the product that wrote X, if that was the last operation and
// adds nothing.
func (s *stream) Activate(o kernels.Activate) {
	h := s.held
	if h != nil && h.Out == o.X && h.Add == nil {
		if s.accepts(o) {
			s.held = nil
			s.send(product{*h, gelu, of(o.X), s.rows()}, *h, o)
		}
		return
	}
	s.flush()
	if !s.accepts(o) {
		return
	}
	x, rows := of(o.X), s.rows()
	s.enqueue("activate", shapesOf(rows, x), s.timed(func() error { return s.activate(x, rows) }, o))
}

// Gate joins the product that wrote In, if that was the last operation, adds
// nothing and does not read what the gate writes.
func (s *stream) Gate(o kernels.Gate) {
	h := s.held
	if h != nil && h.Out == o.In && h.Add == nil {
		if !s.accepts(o) {
			return
		}
		if out := of(o.Out); out.memory != of(h.In).memory && out.memory != of(h.Out).memory {
			s.held = nil
			s.send(product{*h, geglu, out, s.rows()}, *h, o)
			return
		}
	}
	s.flush()
	if !s.accepts(o) {
		return
	}
	out, in, rows := of(o.Out), of(o.In), s.rows()
	s.enqueue("gate", shapesOf(rows, out, in), s.timed(func() error { return s.gate(out, in, rows) }, o))
}

// send enqueues a product, which stands for these operations.
func (s *stream) send(p product, ops ...kernels.Op) {
	if s.err != nil {
		return
	}
	w := p.W.(*weight)
	shapes := func() string { return fmt.Sprintf("[%d %d]·[%d %d]ᵀ", p.rows, w.cols, w.rows, w.cols) }
	s.enqueue("linear", shapes, s.timed(func() error {
		done, err := s.withCublas(p, w)
		if err != nil || done {
			return err
		}
		return s.multiply(p, w)
	}, ops...))
}

// withCublas computes the product with cuBLAS, and what follows with a kernel
// of its own; it does nothing where cuBLAS is not there or has no algorithm
// that fits.
func (s *stream) withCublas(p product, w *weight) (done bool, err error) {
	out := of(p.Out)
	products := s.backend.products
	if products == nil {
		return false, nil
	}
	made := shape{n: w.rows, k: w.cols, wide: out.wide != 0, bias: p.Bias != nil, add: p.Add != nil}
	at, bias, add := out.wide, vector(p.Bias), devicePtr(0)
	if !made.wide {
		at = out.narrow
		if p.Bias != nil {
			bias = p.Bias.(*weight).copied
		}
	}
	if p.Add != nil {
		add = of(p.Add).wide
	}
	if err := s.writes(out.memory); err != nil {
		return false, err
	}
	done, err = products.run(s.compute, made, p.rows, at, of(p.In).operand(s.backend.dtype), w.at, bias, add, s.workspace)
	if !done || err != nil {
		return false, err
	}
	if err := s.firstDone(); err != nil {
		return false, err
	}
	switch p.follow {
	case gelu:
		return true, s.activate(out, p.rows)
	case geglu:
		return true, s.gate(p.to, out, p.rows)
	}
	return true, s.narrowed(out, p.rows)
}

// multiply computes the product and what follows with a kernel of the
// package.
func (s *stream) multiply(p product, w *weight) error {
	t := s.backend.dtype
	kernel := [...]string{nothing: "gemm", gelu: "gemm_gelu", geglu: "gemm_geglu"}[p.follow]
	add := devicePtr(0)
	if p.Add != nil {
		add = of(p.Add).wide
	}
	wide, narrow := p.to.outputs()
	return first(s.writes(p.to.memory),
		s.launch(s.typed(kernel), gemmGeometry(t, p.follow, p.rows, p.to.cols),
			ptr(of(p.In).operand(t)), ptr(w.at), ptr(vector(p.Bias)), ptr(add), wide, narrow,
			num(p.rows), num(p.to.cols), num(w.cols)))
}

// gemmGeometry is that of src/README.md for an output of m rows and n columns.
func gemmGeometry(t DType, f follow, m, n int) geometry {
	g := geometry{y: 1, block: 128, shared: 65536}
	tile := 128
	if t == FP32 {
		g.block, g.shared, tile = 256, 30720, 64
	}
	if f == geglu {
		tile /= 2 // a block computes both halves
	}
	g.x = ceilDiv(m, 128) * ceilDiv(n, tile)
	return g
}

// activate applies the GELU in place, to the float32 copy where there is one.
func (s *stream) activate(x *buffer, rows int) error {
	kernel, at := "activate_fp32", x.wide
	if x.wide == 0 {
		kernel, at = s.typed("activate"), x.narrow
	}
	return first(s.writes(x.memory),
		s.launch(kernel, rowGeometry(rows, x.cols), ptr(at), ptr(0), num(rows), num(x.cols)),
		s.narrowed(x, rows))
}

// gate works on the copies that both buffers have.
func (s *stream) gate(out, in *buffer, rows int) error {
	kernel, to, from, update := "gate_fp32", out.wide, in.wide, s.narrowed
	switch {
	case out.wide != 0 && in.wide != 0:
	case out.narrow != 0 && in.narrow != 0:
		kernel, to, from, update = s.typed("gate"), out.narrow, in.narrow, s.widened
	default:
		return fmt.Errorf("the input and the output of a gate have to be of the same kind")
	}
	return first(s.writes(out.memory),
		s.launch(kernel, rowGeometry(rows, out.cols), ptr(to), ptr(from), num(rows), num(out.cols)),
		update(out, rows))
}

// rowGeometry gives every thread eight columns of two rows.
func rowGeometry(rows, cols int) geometry {
	return geometry{x: ceilDiv(pitch(cols), 1024), y: min(ceilDiv(rows, 2), maxGridY), block: 128}
}
