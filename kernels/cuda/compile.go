package cuda

import (
	"cmp"
	"errors"
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// compiler resolves the operations of a program: each becomes a step of the runner.
type compiler struct {
	*gpu.Context
	backend *Backend
	runner  *runner
	plan    kernels.Plan
}

// step is one operation, ready to be launched.
type step struct {
	op, shapes string // for an error
	entry
	launch func(s *submission) error
}

// needs tells a plan about a device: with cuBLAS the product that a GEGLU gates lies in memory.
func (b *Backend) needs(p *kernels.Program) kernels.Needs {
	return kernels.Needs{Uniform: b.dtype == FP32, Scratch: func(op kernels.Op) (cols int, as kernels.Precision) {
		switch o := op.Do.(type) {
		case kernels.Linear:
			if b.products != nil && o.Then.Gates() {
				rows, _ := o.W.Dims()
				return rows, widest(p.Precision(op.Out))
			}
		case kernels.Attention:
			return attentionScratch(b.dtype, o, p.Cols(op.Out), p.Precision(op.Out)), kernels.Operand
		}
		return 0, 0
	}}
}

// widest is float32 where a value is kept in it: the last step computes there.
func widest(as kernels.Precision) kernels.Precision {
	if as&kernels.Float32 != 0 {
		return kernels.Float32
	}
	return kernels.Operand
}

// Compile allocates the slots of the program's plan, finds its kernels and the algorithms of its products, and sends
// the tables that do not depend on a batch. The weights have to be of this backend.
func (b *Backend) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if err := cmp.Or(p.Err(), l.Check()); err != nil {
		return nil, err
	}
	r := &runner{backend: b, program: p, limits: l}
	err := b.do(func(c *gpu.Context) error {
		return (&compiler{c, b, r, p.Plan(b.needs(p))}).compile()
	})
	if err != nil {
		return nil, cmp.Or(fmt.Errorf("%s: %w", b.device.Name, err), r.Close())
	}
	return r, nil
}

func (c *compiler) compile() error {
	r, b := c.runner, c.backend
	var err error
	for _, s := range []*gpu.Stream{&r.compute, &r.loads, &r.copies} {
		if err == nil {
			*s, err = c.NewStream()
		}
	}
	if err == nil {
		r.fence, err = c.NewEvent()
	}
	if err == nil {
		r.tables, err = newTables(c.Context, r.limits, ranges(r.program))
	}
	r.arena = arena{limits: r.limits, stream: r.compute, rotations: map[string]driver.Pointer{}}
	if err == nil && b.products != nil {
		r.workspace, err = r.arena.alloc(c.Context, workspaceBytes)
	}
	if err == nil {
		r.positions, err = c.kernel("positions")
	}
	if err != nil {
		return err
	}
	for _, s := range c.plan.Slots {
		if err := r.arena.slot(c.Context, s, b.dtype); err != nil {
			return fmt.Errorf("activations [%d %d]: %w", r.limits.Tokens, s.Cols, err)
		}
	}
	for i, op := range r.program.Ops() {
		made, err := c.step(op, i)
		if err != nil {
			return &kernels.OpError{Op: made.op, Shapes: made.shapes, Err: err}
		}
		r.steps = append(r.steps, made)
	}
	return nil
}

// step resolves one operation.
func (c *compiler) step(op kernels.Op, i int) (step, error) {
	p := c.runner.program
	value := func(v kernels.Value) *matrix {
		if v == kernels.None {
			return nil
		}
		return &matrix{c.runner.arena.slots[c.plan.Slot(v)], p.Cols(v), p.PerSequence(v)}
	}
	in, add, out := value(op.In), value(op.Add), value(op.Out)
	var scratch *matrix
	if at := c.plan.Scratch(i); at >= 0 {
		cols, _ := c.backend.needs(p).Scratch(op)
		scratch = &matrix{c.runner.arena.slots[at], cols, false}
	}
	s := step{shapes: p.Shapes(op)}
	s.name, s.perToken, s.perPair = p.Describe(op)
	var err error
	switch o := op.Do.(type) {
	case kernels.Embed:
		s.op = "embed"
		s.launch, err = c.embed(o, out)
	case kernels.Linear:
		s.op = "linear"
		s.launch, err = c.linear(o, out, in, add, scratch, s.entry)
	case kernels.Norm:
		s.op = "norm"
		s.launch, err = c.norm(o, out, in)
	case kernels.Attention:
		s.op = "attention"
		s.launch, err = c.attention(o, out, in, scratch)
	case kernels.Range:
		s.op = "pool"
		s.launch, err = c.pool(o, out, in)
	case kernels.Output:
		s.op, s.name = "output", ""
		s.launch = func(s *submission) error { return s.output(int(o), in) }
	}
	return s, err
}

var errForeignWeight = errors.New("a weight is of another backend or device: load it with this one's NewModel")

// own refuses weights that this backend has not loaded; those that are nil are none.
func (c *compiler) own(weights ...kernels.Weight) error {
	for _, w := range weights {
		if w == nil {
			continue
		}
		if loaded, ok := w.(*weight); !ok || loaded.backend != c.backend {
			return errForeignWeight
		}
	}
	return nil
}

// kernel is one on the device with its contract.
type kernel struct {
	gpu.Kernel
	kernelSpec
}

// kernel finds a kernel of the contract and allows it its shared memory.
func (c *compiler) kernel(name string) (kernel, error) {
	spec, ok := kernelSpecs()[name]
	if !ok {
		return kernel{}, fmt.Errorf("there is no contract for a kernel %s", name)
	}
	found, err := c.Kernel(name, spec.shared)
	return kernel{found, spec}, err
}

// typed is the name of a kernel of the operands' type.
func (c *compiler) typed(kernel string) string { return kernel + "_" + c.backend.dtype.String() }

// narrow gives the launch that updates the copy in the operands' type from the float32 one.
func (c *compiler) narrow(m *matrix) (func(*submission) error, error) {
	return c.convert("narrow", m.narrow, m.wide, m.cols)
}

// convert copies a matrix to the other type, where there are both.
func (c *compiler) convert(name string, to, from driver.Pointer, cols int) (func(*submission) error, error) {
	if to == 0 || from == 0 {
		return func(*submission) error { return nil }, nil
	}
	k, err := c.kernel(c.typed(name))
	stride := gpu.Int(pitch(cols))
	return func(s *submission) error {
		rows := s.rows()
		return s.launch(k, rows, cols, gpu.Ptr(to), gpu.Ptr(from), gpu.Int(rows), gpu.Int(cols), stride, stride)
	}, err
}
