package cuda

import (
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
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
func (c *compiler) linear(o kernels.Linear, out, in, add, scratch *matrix, e entry) (func(*submission) error, error) {
	if err := c.own(o.W, o.Bias); err != nil {
		return nil, err
	}
	if int(o.Then) >= len(activationKernels) {
		return nil, fmt.Errorf("no kernel for %s: %w", o.Then, kernels.ErrUnsupported)
	}
	own, err := c.multiply(o, out, in, add)
	if err != nil || c.backend.products == nil {
		return own, err
	}
	cublas, err := c.withCublas(o, out, in, add, scratch, e)
	return func(s *submission) error {
		if done, err := cublas(s); done || err != nil {
			return err
		}
		return own(s)
	}, err
}

// withCublas gives a product by cuBLAS. It does nothing where cuBLAS has no algorithm that fits.
func (c *compiler) withCublas(o kernels.Linear, out, in, add, scratch *matrix, e entry) (
	launch func(*submission) (done bool, err error), err error) {
	products, r, w, to := c.backend.products, c.runner, o.W.(*weight), out
	if o.Then.Gates() {
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
	var then func(*submission) error
	if o.Then == kernels.Identity {
		then, err = c.narrow(out)
	} else {
		from := driver.Pointer(0) // in place
		switch {
		case o.Then.Gates() && out.wide != 0:
			from = to.wide
		case o.Then.Gates():
			from = to.narrow
		}
		then, err = c.elementwise(activationKernels[o.Then].alone, out, from)
	}
	// The activation has an entry of its own in a profile.
	product, activation := e, entry{name: o.Then.String()}
	plain := o
	plain.Then = kernels.Identity
	product.name, _, _ = r.program.Describe(kernels.Op{Add: kernels.None, Do: plain})
	return func(s *submission) (bool, error) {
		if err := s.waitForReaders(to.memory); err != nil {
			return false, err
		}
		done, err := products.run(r.compute, plan, s.rows(),
			at, in.operand(products.dtype), w.at, bias, residual(add), r.workspace)
		if !done || err != nil {
			return false, err
		}
		if o.Then != kernels.Identity {
			if err := s.split(product, activation); err != nil {
				return false, err
			}
		}
		return true, then(s)
	}, err
}

// multiply gives the launch of a product with its activation, by a kernel of the package.
func (c *compiler) multiply(o kernels.Linear, out, in, add *matrix) (func(*submission) error, error) {
	t, w := c.backend.dtype, o.W.(*weight)
	k, err := c.kernel(c.typed(activationKernels[o.Then].product))
	wide, narrow := out.outputs()
	return func(s *submission) error {
		rows := s.rows()
		if err := s.waitForReaders(out.memory); err != nil {
			return err
		}
		return s.launch(k, rows, out.cols, gpu.Ptr(in.operand(t)), gpu.Ptr(w.at), gpu.Ptr(vector(o.Bias)),
			gpu.Ptr(residual(add)), wide, narrow, gpu.Int(rows), gpu.Int(out.cols), gpu.Int(w.cols))
	}, err
}

// elementwise gives the launches of a kernel that writes the float32 copy of a matrix, where there is one, and of the
// update of the other.
func (c *compiler) elementwise(kernel string, out *matrix, from driver.Pointer) (func(*submission) error, error) {
	name, to := kernel+"_fp32", out.wide
	if out.wide == 0 {
		name, to = c.typed(kernel), out.narrow
	}
	k, err := c.kernel(name)
	if err != nil {
		return nil, err
	}
	narrow, err := c.narrow(out)
	return func(s *submission) error {
		rows := s.rows()
		if err := s.waitForReaders(out.memory); err != nil {
			return err
		}
		if err := s.launch(k, rows, out.cols, gpu.Ptr(to), gpu.Ptr(from), gpu.Int(rows), gpu.Int(out.cols)); err != nil {
			return err
		}
		return narrow(s)
	}, err
}
