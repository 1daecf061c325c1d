package cuda

import (
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// activationKernels are the kernels of each activation: the product that applies it, and the one that applies it alone,
// behind a product of cuBLAS.
var activationKernels = [...]struct{ product, alone string }{
	kernels.Identity: {"gemm", ""},
	kernels.GELU:     {"gemm_gelu", "activate"},
	kernels.GEGLU:    {"gemm_geglu", "gate"},
}

// linear is a product by cuBLAS, where it is there and has an algorithm that fits, with an activation by a kernel of
// its own, or one by a kernel of the package, which applies the activation itself.
func (c *compiler) linear(o kernels.Linear, out, in, add *matrix, scratch *memory, e entry) func(*submission) {
	if int(o.Then) >= len(activationKernels) {
		c.Fail(fmt.Errorf("no kernel for %s: %w", o.Then, kernels.ErrUnsupported))
		return nil
	}
	w, bias := c.weight(o.W), c.weight(o.Bias)
	own := c.multiply(o.Then, w, bias, out, in, add)
	if c.backend.products == nil || c.Err != nil {
		return own
	}
	to := out.memory // of the product
	if o.Then.Gates() {
		to = scratch
	}
	product, then := c.withCublas(w, bias, to, in, add), c.activation(o.Then, out, to)
	// The activation has an entry of its own in a profile.
	plain := o
	plain.Then = kernels.Identity
	e.name, _, _ = c.program.Describe(kernels.Op{Add: kernels.None, Do: plain})
	return func(s *submission) {
		if !product(s) {
			own(s)
			return
		}
		if o.Then != kernels.Identity {
			s.lap(e)
			s.timings.current = entry{name: o.Then.String()}
		}
		then(s)
	}
}

// withCublas gives a product by cuBLAS without its activation. It reports whether cuBLAS has an algorithm that fits,
// and does nothing where it has none.
func (c *compiler) withCublas(w, bias weight, to *memory, in, add *matrix) func(*submission) bool {
	products, at, offset := c.backend.products, to.narrow, bias.copied
	if to.wide != 0 {
		at, offset = to.wide, bias.at
	}
	shape := Product{N: w.rows, K: w.cols, Wide: to.wide != 0, Bias: offset != 0, Add: add != nil}
	plan, err := products.plan(shape, c.limits.Tokens, offset)
	c.Fail(err)
	return func(s *submission) bool {
		done, err := products.run(s.compute, plan, s.tokens(), at, in.operand, w.at, offset, residual(add), s.workspace)
		s.Fail(err)
		return done
	}
}

// multiply gives the launch of a product with its activation, by a kernel of the package.
func (c *compiler) multiply(then kernels.Activation, w, bias weight, out, in, add *matrix) func(*submission) {
	k := c.typed(activationKernels[then].product)
	wide, narrow := out.outputs()
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, out.cols, gpu.Ptr(in.operand), gpu.Ptr(w.at), gpu.Ptr(bias.at),
			gpu.Ptr(residual(add)), wide, narrow, gpu.Int(rows), gpu.Int(out.cols), gpu.Int(w.cols))
	}
}

// activation gives the launches behind a product of cuBLAS: a kernel that writes the float32 copy of out, where there
// is one, in place or, for a GEGLU, from the memory of the product, and the update of the other copy.
func (c *compiler) activation(then kernels.Activation, out *matrix, product *memory) func(*submission) {
	narrow := c.convert("narrow", out.narrow, out.wide, out.cols)
	if then == kernels.Identity {
		return narrow
	}
	t, to, from := c.backend.dtype, out.narrow, product.narrow
	if out.wide != 0 {
		t, to, from = kernels.FP32, out.wide, product.wide
	}
	if !then.Gates() {
		from = 0 // in place; the bias has been added
	}
	k := c.kernel(activationKernels[then].alone + "_" + t.String())
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, out.cols, gpu.Ptr(to), gpu.Ptr(from), gpu.Int(rows), gpu.Int(out.cols))
		narrow(s)
	}
}
