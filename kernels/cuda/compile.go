package cuda

import (
	"cmp"
	"errors"
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// compiler turns each operation of a program into a step of the runner. Its first error is in Context.Err.
type compiler struct {
	*gpu.Context
	*runner
	plan kernels.Plan
}

// step is an operation with everything that launching it needs.
type step struct {
	op, shapes string // kind and shapes of the operation, for OpError
	entry
	writes []*memory // memory that the step overwrites; a copy to the host may still have to read it
	launch func(s *submission)
}

// needs tells the memory planner how much workspace each operation of p needs. With cuBLAS, a Linear with a GEGLU needs
// workspace for the product before the activation: in float32 if the result of the GEGLU is stored in float32,
// otherwise in the operands' type.
func (b *Backend) needs(p *kernels.Program) kernels.Needs {
	return kernels.Needs{Uniform: b.dtype == kernels.FP32, Scratch: func(op kernels.Op) (int, kernels.Precision) {
		switch o := op.Do.(type) {
		case kernels.Linear:
			if b.products != nil && o.Then.Gates() {
				rows, _ := o.W.Dims()
				if p.Precision(op.Out)&kernels.Float32 != 0 {
					return rows, kernels.Float32
				}
				return rows, kernels.Operand
			}
		case kernels.Attention:
			return attentionScratch(b.dtype, o, p.Cols(op.Out), p.Precision(op.Out)), kernels.Operand
		}
		return 0, 0
	}}
}

// Compile allocates the memory of the program's plan, loads the kernels, chooses the algorithms of the matrix products,
// and uploads the tables that are the same for every batch. The weights must have been loaded on this backend.
func (b *Backend) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if err := cmp.Or(p.Err(), l.Check()); err != nil {
		return nil, err
	}
	r := &runner{backend: b, program: p, limits: l, rotations: map[string]driver.Pointer{}}
	err := b.do(func(c *gpu.Context) { (&compiler{c, r, p.Plan(b.needs(p))}).compile() })
	if err != nil {
		_ = r.Close() // err is the error to report
		return nil, fmt.Errorf("%s: %w", b.device.Name, err)
	}
	return r, nil
}

func (c *compiler) compile() {
	own := &c.resources
	c.compute, c.loads, c.copies = own.NewStream(c.Context), own.NewStream(c.Context), own.NewStream(c.Context)
	c.fence = own.NewEvent(c.Context)
	c.tables = newTables(c.Context, own, c.limits, ranges(c.program))
	if c.backend.products != nil {
		c.workspace = own.Alloc(c.Context, workspaceBytes)
	}
	c.positions = c.kernel("positions")
	for _, s := range c.plan.Slots {
		c.slots = append(c.slots, c.slot(s))
	}
	for i, op := range c.program.Ops() {
		if c.Err != nil {
			return
		}
		made := c.step(op, i)
		if c.Err != nil {
			c.Err = &kernels.OpError{Op: made.op, Shapes: made.shapes, Err: c.Err}
		}
		c.steps = append(c.steps, made)
	}
}

// step prepares op, which is operation number i of the program, so that it can be launched for every batch.
func (c *compiler) step(op kernels.Op, i int) step {
	p := c.program
	s := step{shapes: p.Shapes(op)}
	value := func(v kernels.Value) *matrix {
		if v == kernels.None {
			return nil
		}
		return &matrix{c.slots[c.plan.Slot(v)], p.Cols(v)}
	}
	in, add, out := value(op.In), value(op.Add), value(op.Out)
	var scratch *memory
	if at := c.plan.Scratch(i); at >= 0 {
		scratch = c.slots[at]
		s.writes = append(s.writes, scratch)
	}
	if out != nil {
		s.writes = append(s.writes, out.memory)
	}
	s.name, s.perToken, s.perPair = p.Describe(op)
	switch o := op.Do.(type) {
	case kernels.Embed:
		s.op, s.launch = "embed", c.embed(o, out)
	case kernels.Linear:
		s.op, s.launch = "linear", c.linear(o, out, in, add, scratch, s.entry)
	case kernels.Norm:
		s.op, s.launch = "norm", c.norm(o, out, in)
	case kernels.Attention:
		s.op, s.launch = "attention", c.attention(o, out, in, scratch)
	case kernels.Range:
		s.op, s.launch = "pool", c.pool(o, out, in)
	case kernels.Output:
		s.op, s.name, s.launch = "output", "", func(s *submission) { s.output(int(o), op.In, in) }
	}
	return s
}

var errForeignWeight = errors.New("a weight is of another backend or device: load it with this one's NewModel")

// weight returns the device memory of w, or null pointers if w is nil. It fails if w was loaded on another backend.
func (c *compiler) weight(w kernels.Weight) weight {
	if w == nil {
		return weight{}
	}
	loaded, ok := w.(*weight)
	if !ok || loaded.backend != c.backend {
		c.Fail(errForeignWeight)
		return weight{}
	}
	return *loaded
}

// kernel is a kernel that has been loaded on the device, with its geometry and its number of parameters.
type kernel struct {
	gpu.Kernel
	kernelSpec
}

// kernel loads the kernel with this name, and permits it the dynamic shared memory that it needs.
func (c *compiler) kernel(name string) kernel {
	// A name without a spec has no kernel in the PTX either (see TestContractOfThePTX), so c.Kernel fails.
	spec := kernelSpecs()[name]
	return kernel{c.Kernel(name, spec.block, spec.shared), spec}
}

// typed loads the kernel whose name ends in the type of the operands, for example embed_bf16 for embed.
func (c *compiler) typed(name string) kernel { return c.kernel(name + "_" + c.backend.dtype.String()) }

// convert returns a function that launches a conversion between the float32 copy and the 16-bit copy of a matrix. name
// is "narrow" (from float32) or "widen" (to float32). The function does nothing if one of the addresses is null, or if
// they are equal. They can be equal if the operands' type is float32.
func (c *compiler) convert(name string, to, from driver.Pointer, cols int) func(*submission) {
	if to == 0 || from == 0 || to == from {
		return func(*submission) {}
	}
	k, stride := c.typed(name), gpu.Int(pitch(cols))
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, cols, gpu.Ptr(to), gpu.Ptr(from), gpu.Int(rows), gpu.Int(cols), stride, stride)
	}
}
