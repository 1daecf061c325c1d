package cpu

import (
	"fmt"
	"time"
	"unsafe"

	"seqembed/kernels"
)

// runner is a compiled program. Its Start runs a batch to the end before it returns.
type runner struct {
	workers *workerPool
	variant *variant
	tile    tileFunc // kernel for the type of the operands
	bf16    bool     // whether both operands are bfloat16
	program *kernels.Program
	limits  kernels.Limits
	steps   []step
	memory  arena
	scratch []scratch        // one for each worker
	heads   attentionScratch // workspace of attention
	profile *kernels.Profile

	batch kernels.Batch // the current batch
	dst   [][]float32
	progress
}

// step runs one operation on the current batch. Compile creates the function run and the closures that run needs, so
// that a batch allocates nothing.
type step struct {
	name              string
	perToken, perPair float64 // FLOPs per token, and per ordered pair of tokens of a sequence
	run               func()
}

// scratch is the workspace of one worker.
type scratch struct {
	acc       []float32  // accumulators of a product
	converted []float32  // maxPanels panels of a block, converted from bfloat16 to float32
	row       []float32  // a row in float32, of a matrix that is stored only as bfloat16
	factor    [1]float32 // the factor of a sequence's embeddings
	head      headScratch
}

// Compile allocates the slots of the program's plan and prepares every operation.
func (b *Backend) Compile(p *kernels.Program, l kernels.Limits) (kernels.Runner, error) {
	if err := p.Err(); err != nil {
		return nil, err
	}
	if err := l.Check(); err != nil {
		return nil, err
	}
	r := &runner{workers: b.workers, progress: progress{tasks: b.workers}, variant: b.variant, tile: b.variant.tile, program: p, limits: l,
		scratch: make([]scratch, b.workers.size)}
	r.heads.words = func(n int) int { return n }
	if b.format == bf16 {
		r.bf16, r.tile, r.heads.words = true, b.variant.pairs.tile, pairs
	}
	plan := p.Plan(kernels.Needs{Uniform: !r.bf16, Scratch: func(op kernels.Op) (int, kernels.Precision) {
		return scratchOf(p, op)
	}})
	slots, widest := make([]matrix, len(plan.Slots)), 0
	for i, s := range plan.Slots {
		var err error
		if slots[i], err = allocate(&r.memory, s, l); err != nil {
			_ = r.Close() // frees the slots; err is the one to report
			return nil, err
		}
		widest = max(widest, s.Cols)
	}
	for i := range r.scratch {
		r.scratch[i].acc = aligned(blockRows * blockPanels * panelCols)
		r.scratch[i].converted = aligned(maxPanels * blockK * panelCols)
		r.scratch[i].row = aligned(widest)
	}
	value := func(v kernels.Value) *matrix {
		if v == kernels.None {
			return nil
		}
		m := slots[plan.Slot(v)]
		m.cols = p.Cols(v)
		return &m
	}
	for i, op := range p.Ops() {
		var z *matrix
		if at := plan.Scratch(i); at >= 0 {
			m := slots[at]
			m.cols, _ = scratchOf(p, op)
			z = &m
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
		if err = checkHead(out.cols/o.Heads, r.bf16); err != nil {
			return s, &kernels.OpError{Op: "attention", Shapes: r.program.Shapes(op), Err: err}
		}
		s.run = r.attention(o, out, in, z)
	case kernels.Range:
		s.run = r.pool(o, out, in)
	case kernels.Output:
		s.run = func() { in.copyTo(r.dst[o]) }
	}
	return s, err
}

// scratchOf returns the columns and the type of the workspace that an operation needs. Two operations need workspace: a
// gated product whose second half does not begin with a new panel, and an attention with a Rotary, if a later operation
// reads the input of the attention.
func scratchOf(p *kernels.Program, op kernels.Op) (cols int, as kernels.Precision) {
	switch o := op.Do.(type) {
	case kernels.Linear:
		if cols, _ := o.W.Dims(); o.Then.Gates() && cols/2%panelCols != 0 {
			return cols, kernels.Float32
		}
	case kernels.Attention:
		if o.Rotary != nil && !p.Last(op) {
			return p.Cols(op.In), kernels.Operand
		}
	}
	return 0, 0
}

// matrix is the memory of one value of a program: its rows as float32, as bfloat16, or as both. Rows of n words are
// stride(n) words apart.
type matrix struct {
	cols  int
	at    []float32
	pairs []float32 // rows of pairs of bfloat16; an odd last value is followed by a zero
}

// stride returns the distance between two rows of a matrix, in words, for rows of n words. A row has room for whole
// panels. The distance is an odd number of cache lines: with 4096 bytes, for example, the first columns of all rows
// would compete for the same set of the first-level cache. The products of DNABERT-S, of up to 6144 columns, would take
// up to 5% longer.
func stride(n int) int {
	const words = line / 4
	return ((n+words-1)/words | 1) * words
}

// allocate makes the memory of a slot.
func allocate(memory *arena, s kernels.Slot, l kernels.Limits) (m matrix, err error) {
	rows := l.Tokens
	if s.PerSequence {
		rows = l.Sequences
	}
	if s.Precision&kernels.Float32 != 0 {
		m.at, err = memory.floats(rows * stride(s.Cols))
	}
	if s.Precision&kernels.Operand != 0 && err == nil {
		m.pairs, err = memory.floats(rows * stride(pairs(s.Cols)))
	}
	if err != nil {
		err = fmt.Errorf("activations [%d %d]: %w", rows, s.Cols, err)
	}
	return m, err
}

// pairs returns the number of 32-bit words that hold n bfloat16 values.
func pairs(n int) int { return (n + 1) / 2 }

// halves returns the bfloat16 values in 32-bit words, two for each word.
func halves(words []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(words))), 2*len(words))
}

func (m *matrix) row(r int) []float32 { return m.at[r*stride(m.cols):][:m.cols] }

// copyTo copies rows to dst, without the gaps between them, until dst is full.
func (m *matrix) copyTo(dst []float32) {
	for r := range len(dst) / m.cols {
		copy(dst[r*m.cols:], m.row(r))
	}
}

// halfRow returns a row as bfloat16. After an odd number of values a zero follows.
func (m *matrix) halfRow(r int) []uint16 {
	words := pairs(m.cols)
	return halves(m.pairs[r*stride(words):][:words])
}

// operand returns the words that matrix products read, and the distance between two rows. A word is a float32, or a
// pair of bfloat16 values.
func (m *matrix) operand() (words []float32, ld int) {
	if m.pairs != nil {
		return m.pairs, stride(pairs(m.cols))
	}
	return m.at, stride(m.cols)
}

// float32Row returns memory for row t of a matrix in float32: the row itself, or memory of the worker if the matrix is
// stored only as bfloat16. The caller computes the row and passes it to round.
func (s *scratch) float32Row(m *matrix, t int) []float32 {
	if m.at != nil {
		return m.row(t)
	}
	return s.row[:m.cols]
}

// round stores float32 values as bfloat16 in the matrix m, if m has a copy in that type. The values belong to row t and
// begin at the column from, which must be even.
func (v *variant) round(m *matrix, t, from int, values []float32) {
	if m.pairs != nil {
		v.pairs.narrow(m.halfRow(t)[from:], values)
	}
}

// Start runs the batch to its end before it returns. The function wait only returns the error.
func (s *runner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	err := s.program.CheckRun(s.limits, b, dst)
	if err == nil {
		err = s.heads.reserve(&s.memory, s.scratch, b)
	}
	if err != nil {
		return func() error { return err }
	}
	s.batch, s.dst = b, dst
	s.heads.stale = true
	s.begin(b, s.steps)
	for i := range s.steps {
		step := &s.steps[i]
		flops := kernels.FLOPs(b, step.perToken, step.perPair)
		s.next(flops)
		start := time.Now()
		step.run()
		if s.profile != nil {
			s.profile.Add(step.name, flops, time.Since(start))
		}
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

// rowsPerTask is the maximum number of rows in a task of an operation that computes row by row. It is so small that a
// task takes microseconds and all workers end at about the same time.
const rowsPerTask = 32

// eachRow returns a function that calls do for every token's row, in parallel.
func (s *runner) eachRow(do func(worker, t int)) func() {
	task := func(worker, task int) {
		for i := task * rowsPerTask; i < min((task+1)*rowsPerTask, len(s.batch.IDs)); i++ {
			do(worker, i)
		}
	}
	return func() { s.workers.run((len(s.batch.IDs)+rowsPerTask-1)/rowsPerTask, task) }
}

// eachSequence returns a function that calls do for every sequence, in parallel.
func (s *runner) eachSequence(do func(worker, q int)) func() {
	return func() { s.workers.run(s.batch.Sequences(), do) }
}
