package cuda

import (
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// activationKernels has the names of two kernels for each activation. The kernel named product multiplies two matrices
// and applies the activation. The kernel named alone applies the activation to a product that cuBLAS has computed.
var activationKernels = [...]struct{ product, alone string }{
	kernels.Identity: {"gemm", ""},
	kernels.GELU:     {"gemm_gelu", "activate"},
	kernels.GEGLU:    {"gemm_geglu", "gate"},
}

// linear returns a function that launches a matrix product with its activation. If there is a cuBLAS with a usable
// algorithm, cuBLAS multiplies and a second kernel applies the activation. Otherwise one kernel of the package does
// both. e is the operation's entry in a profile.
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
	to := out.memory // where cuBLAS stores the product
	if o.Then.Gates() {
		to = scratch
	}
	product, then := c.withCublas(w, bias, to, in, add), c.activation(o.Then, out, to)
	// With cuBLAS the activation has an entry of its own in a profile, so e becomes the entry of the product alone.
	plain := o
	plain.Then = kernels.Identity
	e.name, _, _ = c.program.Describe(kernels.Op{Add: kernels.None, Do: plain})
	return func(s *submission) {
		if !product(s) {
			own(s)
			return
		}
		if o.Then != kernels.Identity {
			s.endTiming(e)
			s.timings.current = entry{name: o.Then.String()}
		}
		then(s)
	}
}

// withCublas returns a function that launches a product by cuBLAS, without its activation. If cuBLAS has no usable
// algorithm for the number of rows, the returned function does nothing and returns false.
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

// multiply returns a function that launches the package's own kernel for a matrix product with its activation.
func (c *compiler) multiply(then kernels.Activation, w, bias weight, out, in, add *matrix) func(*submission) {
	k := c.typed(activationKernels[then].product)
	wide, narrow := out.outputs()
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, out.cols, gpu.Ptr(in.operand), gpu.Ptr(w.at), gpu.Ptr(bias.at),
			gpu.Ptr(residual(add)), wide, narrow, gpu.Int(rows), gpu.Int(out.cols), gpu.Int(w.cols))
	}
}

// activation returns a function that launches the activation of a product that cuBLAS has computed, and then updates
// the 16-bit copy of out if out also has a float32 copy. For a GEGLU, the argument product is separate memory, from
// which the kernel reads. For other activations it is the memory of out, and the kernel works in place.
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
		from = 0 // the kernel works in place; its second parameter is a bias, null because cuBLAS has added the bias
	}
	k := c.kernel(activationKernels[then].alone + "_" + t.String())
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, out.cols, gpu.Ptr(to), gpu.Ptr(from), gpu.Int(rows), gpu.Int(out.cols))
		narrow(s)
	}
}
