package cuda

import (
	"errors"
	"fmt"

	"seqembed/kernels"
)

// runner is a compiled program. The fields of the first group do not change after Compile; those of the second are the
// caller's, those of the third belong to the device's thread.
//
// On the device an operation goes to the compute stream. The batch's ids go up, and results come down, on streams of
// their own; events order the three.
type runner struct {
	backend *Backend
	device  *device
	program *kernels.Program
	limits  kernels.Limits
	steps   []step
	waiter  *thread // waits for events, so that the device's thread never does

	profile     *kernels.Profile // or nil
	submissions []*submission    // every one
	idle        []*submission    // those that can be used again

	compute   handle
	loads     handle // to the device
	copies    handle // from the device
	fence     handle // event: orders two streams, and may be recorded again at once
	workspace devicePtr
	tables    *tables
	positions kernel
	rotations map[string]devicePtr // tables of cosines and sines, by the bytes of their frequencies
	constants []devicePtr
	slots     []*memory
}

// step is one operation, ready to be launched.
type step struct {
	op, shapes string // for an error
	entry
	launch func(s *submission) error // on the device's thread
}

// needs is what a plan has to know of a device: with cuBLAS the product that a GEGLU gates lies in memory.
func (b *Backend) needs(p *kernels.Program) kernels.Needs {
	return kernels.Needs{Uniform: b.dtype == FP32, Scratch: func(op kernels.Op) (cols int, as kernels.Precision) {
		switch o := op.Do.(type) {
		case kernels.Linear:
			if b.products != nil && o.Then == kernels.GEGLU {
				rows, _ := o.W.Dims()
				return rows, widest(p.Precision(op.Out))
			}
		case kernels.Attention:
			return attentionScratch(b.dtype, o, p.Cols(op.Out), p.Precision(op.Out)), kernels.Operand
		}
		return 0, 0
	}}
}

// widest is float32 where a value is kept in it: what is computed last is computed there.
func widest(as kernels.Precision) kernels.Precision {
	if as&kernels.Float32 != 0 {
		return kernels.Float32
	}
	return kernels.Operand
}

// Compile allocates the slots of the program's plan, finds its kernels and the algorithms of its products, and sends
// what does not depend on a batch.
func (b *Backend) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if err := first(p.Err(), l.Check()); err != nil {
		return nil, err
	}
	r := &runner{backend: b, device: b.device, program: p, limits: l, rotations: map[string]devicePtr{}}
	d := b.device
	err := d.thread.call(r.compile)
	if err == nil {
		r.waiter, err = startThread(
			func() error { return d.drv.cuCtxSetCurrent(d.context).err("cuCtxSetCurrent") },
			func() { d.drv.cuCtxSetCurrent(0) })
	}
	if err != nil {
		return nil, first(fmt.Errorf("%s: %w", d.Name, err), r.Close())
	}
	return r, nil
}

func (r *runner) compile() error {
	d, b := r.device, r.backend
	var err error
	try := func(p *handle, make func() (handle, error)) {
		if err == nil {
			*p, err = make()
		}
	}
	try(&r.compute, d.newStream)
	try(&r.loads, d.newStream)
	try(&r.copies, d.newStream)
	try(&r.fence, d.newEvent)
	if err == nil {
		r.tables, err = newTables(d, r.limits, ranges(r.program))
	}
	if err == nil && b.products != nil {
		r.workspace, err = d.alloc(workspaceBytes)
	}
	if err == nil {
		r.positions, err = r.kernel("positions", 0)
	}
	if err != nil {
		return err
	}
	plan := r.program.Plan(b.needs(r.program))
	for _, s := range plan.Slots {
		if err := r.allocate(s); err != nil {
			return fmt.Errorf("activations [%d %d]: %w", r.limits.Tokens, s.Cols, err)
		}
	}
	for i, op := range r.program.Ops() {
		made, err := r.step(op, plan, i)
		if err != nil {
			return &kernels.OpError{Op: made.op, Shapes: made.shapes, Err: err}
		}
		r.steps = append(r.steps, made)
	}
	return nil
}

// step resolves one operation.
func (r *runner) step(op kernels.Op, plan kernels.Plan, i int) (step, error) {
	value := func(v kernels.Value) *matrix {
		if v == kernels.None {
			return nil
		}
		return &matrix{r.slots[plan.Slot(v)], r.program.Cols(v), r.program.PerSequence(v)}
	}
	in, add, out := value(op.In), value(op.Add), value(op.Out)
	var scratch *matrix
	if at := plan.Scratch(i); at >= 0 {
		cols, _ := r.backend.needs(r.program).Scratch(op)
		scratch = &matrix{r.slots[at], cols, false}
	}
	s := step{shapes: r.program.Shapes(op)}
	s.name, s.perToken, s.perPair = r.program.Describe(op)
	var err error
	switch o := op.Do.(type) {
	case kernels.Embed:
		s.op = "embed"
		s.launch, err = r.embed(o, out)
	case kernels.Linear:
		s.op = "linear"
		s.launch, err = r.linear(o, out, in, add, scratch, s.entry)
	case kernels.Norm:
		s.op = "norm"
		s.launch, err = r.norm(o, out, in)
	case kernels.Attention:
		s.op = "attention"
		s.launch, err = r.attention(o, out, in, scratch)
	case kernels.Range:
		s.op = "pool"
		s.launch, err = r.pool(o, out, in)
	case kernels.Output:
		s.op, s.name = "output", ""
		s.launch = func(s *submission) error { return r.output(s, int(o), in) }
	}
	return s, err
}

// Close waits for what is running and frees everything.
func (r *runner) Close() error {
	d := r.device
	err := d.thread.call(func() error {
		for _, stream := range []handle{r.compute, r.loads, r.copies} {
			if stream != 0 {
				d.drv.cuStreamSynchronize(stream) // an error was or will be reported by a wait
			}
		}
		for _, m := range r.slots {
			m.free(d)
		}
		for _, s := range r.submissions {
			s.free()
		}
		for _, p := range r.rotations {
			d.free(p)
		}
		for _, p := range r.constants {
			d.free(p)
		}
		d.free(r.workspace)
		r.tables.free(d)
		if r.fence != 0 {
			d.drv.cuEventDestroy(r.fence)
		}
		for _, stream := range []handle{r.compute, r.loads, r.copies} {
			if stream != 0 {
				d.drv.cuStreamDestroy(stream)
			}
		}
		r.slots, r.submissions, r.rotations, r.constants = nil, nil, nil, nil
		r.tables, r.workspace, r.fence, r.compute, r.loads, r.copies = nil, 0, 0, 0, 0, 0
		return nil
	})
	if r.waiter != nil {
		r.waiter.stop()
		r.waiter = nil
	}
	if errors.Is(err, errClosed) {
		return nil // the context went first, and everything with it
	}
	return err
}

// kernel is a function on the device.
type kernel struct {
	name     string
	function handle
}

// kernel finds a kernel and allows it that much dynamic shared memory.
func (r *runner) kernel(name string, shared int) (kernel, error) {
	f, err := r.device.code.function(name, uint32(shared))
	return kernel{name, f}, err
}

// typed is the name of a kernel of the operands' type.
func (r *runner) typed(kernel string) string { return kernel + "_" + r.backend.dtype.String() }

// launch enqueues a kernel on the compute stream.
func (r *runner) launch(k kernel, g geometry, params ...param) error {
	return r.device.launch(r.compute, k, g, params...)
}
