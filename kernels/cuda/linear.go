package cuda

import "seqembed/kernels"

// The functions of this file run on the device's thread. Those that resolve an operation give what launches it.

// linear is a product by cuBLAS, where it is there and has an algorithm that fits, with an activation by a kernel of
// its own, or one by a kernel of the package, which applies the activation itself.
func (r *runner) linear(o kernels.Linear, out, in, add, scratch *matrix, e entry) (func(*submission) error, error) {
	own, err := r.multiply(o, out, in, add)
	if err != nil || r.backend.products == nil {
		return own, err
	}
	cublas, err := r.withCublas(o, out, in, add, scratch, e)
	return func(s *submission) error {
		if done, err := cublas(s); done || err != nil {
			return err
		}
		return own(s)
	}, err
}

// withCublas gives a product by cuBLAS. It does nothing where cuBLAS has no algorithm that fits.
func (r *runner) withCublas(o kernels.Linear, out, in, add, scratch *matrix, e entry) (
	launch func(*submission) (done bool, err error), err error) {
	products, w, to := r.backend.products, o.W.(*weight), out
	if o.Then == kernels.GEGLU {
		to = scratch
	}
	made := shape{n: w.rows, k: w.cols, wide: to.wide != 0, bias: o.Bias != nil, add: add != nil}
	at, bias := to.wide, vector(o.Bias)
	if !made.wide {
		at = to.narrow
		if o.Bias != nil {
			bias = o.Bias.(*weight).copied
		}
	}
	plan, err := products.plan(made, r.limits.Tokens, bias)
	if err != nil {
		return nil, err
	}
	var then func(rows int) error
	switch o.Then {
	case kernels.GELU:
		then, err = r.activate(out)
	case kernels.GEGLU:
		then, err = r.gate(out, to)
	default:
		then, err = r.narrow(out)
	}
	// The activation has an entry of its own in a profile.
	product, activation := e, entry{name: o.Then.String()}
	plain := o
	plain.Then = kernels.Identity
	product.name, _, _ = r.program.Describe(kernels.Op{Add: kernels.None, Do: plain})
	return func(s *submission) (bool, error) {
		if err := r.waitForReaders(to.memory); err != nil {
			return false, err
		}
		done, err := products.run(r.compute, plan, s.rows(), at, in.operand(r.backend.dtype), w.at, bias, residual(add), r.workspace)
		if !done || err != nil {
			return false, err
		}
		if o.Then != kernels.Identity {
			if err := r.split(s, product, activation); err != nil {
				return false, err
			}
		}
		return true, then(s.rows())
	}, err
}

// multiply gives the launch of a product with its activation, by a kernel of the package.
func (r *runner) multiply(o kernels.Linear, out, in, add *matrix) (func(*submission) error, error) {
	t, w := r.backend.dtype, o.W.(*weight)
	name := [...]string{kernels.Identity: "gemm", kernels.GELU: "gemm_gelu", kernels.GEGLU: "gemm_geglu"}[o.Then]
	k, err := r.kernel(r.typed(name), gemmGeometry(t, o.Then, 1, out.cols).shared)
	wide, narrow := out.outputs()
	return func(s *submission) error {
		rows := s.rows()
		return first(r.waitForReaders(out.memory),
			r.launch(k, gemmGeometry(t, o.Then, rows, out.cols),
				ptr(in.operand(t)), ptr(w.at), ptr(vector(o.Bias)), ptr(residual(add)), wide, narrow,
				num(rows), num(out.cols), num(w.cols)))
	}, err
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

// activate gives the launches of a GELU in place.
func (r *runner) activate(x *matrix) (func(rows int) error, error) {
	return r.elementwise("activate", x, 0)
}

// gate gives the launches of the gating of a product.
func (r *runner) gate(out, in *matrix) (func(rows int) error, error) {
	from := in.wide
	if out.wide == 0 {
		from = in.narrow
	}
	return r.elementwise("gate", out, from)
}

// elementwise gives the launches of a kernel that writes the float32 copy of a matrix, where there is one, and of the
// update of the other.
func (r *runner) elementwise(kernel string, out *matrix, from devicePtr) (func(rows int) error, error) {
	name, to := kernel+"_fp32", out.wide
	if out.wide == 0 {
		name, to = r.typed(kernel), out.narrow
	}
	k, err := r.kernel(name, 0)
	if err != nil {
		return nil, err
	}
	narrow, err := r.narrow(out)
	return func(rows int) error {
		return first(r.waitForReaders(out.memory),
			r.launch(k, rowGeometry(rows, out.cols), ptr(to), ptr(from), num(rows), num(out.cols)),
			narrow(rows))
	}, err
}

// rowGeometry gives every thread eight columns of two rows.
func rowGeometry(rows, cols int) geometry {
	return geometry{x: ceilDiv(pitch(cols), 1024), y: min(ceilDiv(rows, 2), maxGridY), block: 128}
}
