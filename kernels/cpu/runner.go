package cpu

import (
	"fmt"
	"time"

	"seqembed/kernels"
)

// runner is a compiled program. Start runs a batch to its end before it returns.
type runner struct {
	workers *workerPool
	variant *variant
	program *kernels.Program
	limits  kernels.Limits
	steps   []step
	memory  arena
	scratch []scratch // one for each worker
	heads   attentionScratch
	angles  []*rotaryTable // one for each set of frequencies
	profile *kernels.Profile

	batch kernels.Batch // the current batch
	dst   [][]float32
}

// step runs one operation on the current batch. Compile creates run and the closures that it needs, so that a batch
// allocates nothing.
type step struct {
	name              string
	perToken, perPair float64 // FLOPs
	run               func()
}

// scratch is the workspace of one worker.
type scratch struct {
	acc       []float32 // accumulators of a product
	converted []float32 // maxPanels panels of a block, converted from bfloat16
	scores    []float32 // blockQueries rows of scores
}

// Compile allocates the slots of the program's plan and prepares every operation.
func (b *Backend) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if err := p.Err(); err != nil {
		return nil, err
	}
	if err := l.Check(); err != nil {
		return nil, err
	}
	r := &runner{workers: b.workers, variant: b.variant, program: p, limits: l, scratch: make([]scratch, b.workers.size)}
	for i := range r.scratch {
		r.scratch[i].acc = aligned(blockRows * blockPanels * panelCols)
		r.scratch[i].converted = aligned(maxPanels * blockK * panelCols)
	}
	plan := p.Plan(kernels.Needs{Uniform: true, Scratch: func(op kernels.Op) (int, kernels.Precision) {
		return scratchOf(p, op)
	}})
	slots := make([][]float32, len(plan.Slots))
	for i, s := range plan.Slots {
		rows := l.Tokens
		if s.PerSequence {
			rows = l.Sequences
		}
		var err error
		if slots[i], err = r.memory.floats(rows * s.Cols); err != nil {
			_ = r.Close() // frees the slots; err is the one to report
			return nil, fmt.Errorf("activations [%d %d]: %w", rows, s.Cols, err)
		}
	}
	value := func(v kernels.Value) *matrix {
		if v == kernels.None {
			return nil
		}
		return &matrix{cols: p.Cols(v), at: slots[plan.Slot(v)]}
	}
	for i, op := range p.Ops() {
		var z *matrix
		if at := plan.Scratch(i); at >= 0 {
			cols, _ := scratchOf(p, op)
			z = &matrix{cols: cols, at: slots[at]}
		}
		made, err := r.step(op, value(op.Out), value(op.In), value(op.Add), z)
		if err != nil {
			_ = r.Close()
			return nil, err
		}
		r.steps = append(r.steps, made)
	}
	return r, nil
}

// step prepares one operation. z is its workspace, or nil.
func (r *runner) step(op kernels.Op, out, in, add, z *matrix) (s step, err error) {
	s.name, s.perToken, s.perPair = r.program.Describe(op)
	switch o := op.Do.(type) {
	case kernels.Embed:
		s.run = r.embed(o, out)
	case kernels.Linear:
		if s.run, err = r.linear(o, out, in, add, z); err != nil {
			err = &kernels.OpError{Op: "linear", Shapes: r.program.Shapes(op), Err: err}
		}
	case kernels.Norm:
		s.run = r.norm(o, out, in)
	case kernels.Attention:
		s.run = r.attention(o, out, in, z)
	case kernels.Range:
		s.run = r.pool(o, out, in)
	case kernels.Output:
		s.run = func() { copy(r.dst[o], in.at) }
	}
	return s, err
}

// scratchOf returns the columns of the workspace that an operation needs. A gated product whose second half does not
// begin at a panel needs one, and a rotary attention needs one if a later operation reads its input.
func scratchOf(p *kernels.Program, op kernels.Op) (cols int, as kernels.Precision) {
	switch o := op.Do.(type) {
	case kernels.Linear:
		if cols, _ := o.W.Dims(); o.Then.Gates() && cols/2%panelCols != 0 {
			return cols, kernels.Float32
		}
	case kernels.Attention:
		if o.Rotary != nil && !p.Last(op) {
			return p.Cols(op.In), kernels.Float32
		}
	}
	return 0, 0
}

// matrix is a value in its slot.
type matrix struct {
	cols int
	at   []float32
}

func (m *matrix) row(r int) []float32 { return m.at[r*m.cols : (r+1)*m.cols] }

// Start runs the batch. wait only returns its error.
func (s *runner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	err := s.program.CheckRun(s.limits, b, dst)
	if err == nil {
		err = s.reserve(b)
	}
	if err != nil {
		return func() error { return err }
	}
	s.batch, s.dst = b, dst
	s.heads.stale = true
	for i := range s.steps {
		step := &s.steps[i]
		if s.profile == nil {
			step.run()
			continue
		}
		start := time.Now()
		step.run()
		s.profile.Add(step.name, kernels.FLOPs(b, step.perToken, step.perPair), time.Since(start))
	}
	s.batch, s.dst = kernels.Batch{}, nil
	return func() error { return nil }
}

// Profile adds the timings of later batches to p.
func (s *runner) Profile(p *kernels.Profile) bool {
	s.profile = p
	return true
}

// Close frees the activations.
func (s *runner) Close() error { return s.memory.free() }

// rowsPerTask bounds the number of rows in a task of a row operation, so that a task takes microseconds and the workers
// are evenly loaded.
const rowsPerTask = 32

// eachRow returns a function that calls do for every token's row, in parallel.
func (s *runner) eachRow(do func(t int)) func() {
	task := func(_, task int) {
		for i := task * rowsPerTask; i < min((task+1)*rowsPerTask, len(s.batch.IDs)); i++ {
			do(i)
		}
	}
	return func() { s.workers.run((len(s.batch.IDs)+rowsPerTask-1)/rowsPerTask, task) }
}

// eachSequence returns a function that calls do for every sequence, in parallel.
func (s *runner) eachSequence(do func(worker, q int)) func() {
	return func() { s.workers.run(s.batch.Sequences(), do) }
}
