package cuda

import (
	"fmt"

	"seqembed/kernels"
)

func (s *stream) Linear(o kernels.Linear) {
	if !s.accepts(o) {
		return
	}
	rows, w := s.rows(), o.W.(*weight)
	shapes := func() string { return fmt.Sprintf("[%d %d]·[%d %d]ᵀ", rows, w.cols, w.rows, w.cols) }
	s.enqueue("linear", shapes, s.timed(func() error {
		done, err := s.withCublas(o, rows)
		if err != nil || done {
			return err
		}
		return s.multiply(o, rows)
	}, o))
}

// withCublas computes the product with cuBLAS, and what follows with a kernel
// of its own; it does nothing where cuBLAS is not there or has no algorithm
// that fits.
func (s *stream) withCublas(o kernels.Linear, rows int) (done bool, err error) {
	products, out, w := s.backend.products, of(o.Out), o.W.(*weight)
	if products == nil {
		return false, nil
	}
	to := out
	if o.Then == kernels.GEGLU {
		if to, err = s.product(w.rows, out.wide != 0); err != nil {
			return false, err
		}
	}
	made := shape{n: w.rows, k: w.cols, wide: to.wide != 0, bias: o.Bias != nil, add: o.Add != nil}
	at, bias, add := to.wide, vector(o.Bias), devicePtr(0)
	if !made.wide {
		at = to.narrow
		if o.Bias != nil {
			bias = o.Bias.(*weight).copied
		}
	}
	if o.Add != nil {
		add = of(o.Add).wide
	}
	if err := s.writes(to.memory); err != nil {
		return false, err
	}
	done, err = products.run(s.compute, made, rows, at, of(o.In).operand(s.backend.dtype), w.at, bias, add, s.workspace)
	if !done || err != nil {
		return false, err
	}
	switch o.Then {
	case kernels.GELU:
		return true, first(s.productDone(o), s.activate(out, rows))
	case kernels.GEGLU:
		return true, first(s.productDone(o), s.gate(out, to, rows))
	}
	return true, s.narrowed(out, rows)
}

// product gives memory for a product of cuBLAS of that many columns that a
// kernel gates: in float32 where the gated half is, else in the operands'
// type. It is made when it is first needed. It runs on the device's thread.
func (s *stream) product(cols int, wide bool) (*buffer, error) {
	kind, key := kernels.Operand, -cols
	if wide {
		kind, key = kernels.Residual, cols
	}
	if z := s.products[key]; z != nil {
		return z, nil
	}
	z := &buffer{memory: &memory{cols: cols}, cols: cols, kind: kind}
	if err := s.provide(z, s.limits.Tokens); err != nil {
		return nil, err
	}
	s.products[key] = z
	return z, nil
}

// multiply computes the product and what follows with a kernel of the
// package.
func (s *stream) multiply(o kernels.Linear, rows int) error {
	t, out, w := s.backend.dtype, of(o.Out), o.W.(*weight)
	kernel := [...]string{kernels.Identity: "gemm", kernels.GELU: "gemm_gelu", kernels.GEGLU: "gemm_geglu"}[o.Then]
	add := devicePtr(0)
	if o.Add != nil {
		add = of(o.Add).wide
	}
	wide, narrow := out.outputs()
	return first(s.writes(out.memory),
		s.launch(s.typed(kernel), gemmGeometry(t, o.Then, rows, out.cols),
			ptr(of(o.In).operand(t)), ptr(w.at), ptr(vector(o.Bias)), ptr(add), wide, narrow,
			num(rows), num(out.cols), num(w.cols)))
}

// gemmGeometry is that of src/README.md for an output of m rows and n columns.
func gemmGeometry(t DType, then kernels.Activation, m, n int) geometry {
	g := geometry{y: 1, block: 128, shared: 65536}
	tile := 128
	if t == FP32 {
		g.block, g.shared, tile = 256, 30720, 64
	}
	if then == kernels.GEGLU {
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

// gate writes the float32 copy where there is one, as activate does.
func (s *stream) gate(out, in *buffer, rows int) error {
	kernel, to, from := "gate_fp32", out.wide, in.wide
	if out.wide == 0 {
		kernel, to, from = s.typed("gate"), out.narrow, in.narrow
	}
	return first(s.writes(out.memory),
		s.launch(kernel, rowGeometry(rows, out.cols), ptr(to), ptr(from), num(rows), num(out.cols)),
		s.narrowed(out, rows))
}

// rowGeometry gives every thread eight columns of two rows.
func rowGeometry(rows, cols int) geometry {
	return geometry{x: ceilDiv(pitch(cols), 1024), y: min(ceilDiv(rows, 2), maxGridY), block: 128}
}
