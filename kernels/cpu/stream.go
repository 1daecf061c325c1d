package cpu

import (
	"fmt"
	"time"

	"seqembed/kernels"
)

// stream runs each operation inside the call that enqueues it.
type stream struct {
	crew    *crew
	variant *variant
	limits  kernels.Limits
	batch   kernels.Batch
	profile *kernels.Profile // or nil
	err     error
	scratch []scratch // one a worker
	heads   attentionScratch
	angles  rotaryTable
	buffers arena
}

// scratch is one worker's own memory.
type scratch struct {
	acc    []float32 // accumulators of a product
	scores []float32 // attention: blockQueries rows of scores
	turned []float32 // attention: rotated keys or queries of one head
}

func newStream(c *crew, v *variant, limits kernels.Limits) *stream {
	s := &stream{crew: c, variant: v, limits: limits, scratch: make([]scratch, c.size)}
	for i := range s.scratch {
		s.scratch[i].acc = aligned(blockRows * blockPanels * panelCols)
	}
	return s
}

type buffer struct {
	cols        int
	kind        kernels.Kind
	perSequence bool
	at          []float32
}

func (b *buffer) Cols() int           { return b.cols }
func (b *buffer) Kind() kernels.Kind  { return b.kind }
func (b *buffer) PerSequence() bool   { return b.perSequence }
func (b *buffer) row(r int) []float32 { return b.at[r*b.cols : (r+1)*b.cols] }

func of(b kernels.Buffer) *buffer { return b.(*buffer) }

func (s *stream) Tokens(cols int, k kernels.Kind) kernels.Buffer {
	return &buffer{cols: cols, kind: k, at: s.allocate("tokens", s.limits.Tokens, cols)}
}

func (s *stream) Sequences(cols int) kernels.Buffer {
	return &buffer{cols: cols, kind: kernels.Residual, perSequence: true, at: s.allocate("sequences", s.limits.Sequences, cols)}
}

// allocate makes a matrix of zeros; an error sticks, as an operation's does.
func (s *stream) allocate(op string, rows, cols int) []float32 {
	at, err := s.buffers.floats(rows * cols)
	if err != nil && s.err == nil {
		s.err = &kernels.OpError{Op: op, Shapes: fmt.Sprintf("[%d %d]", rows, cols), Err: err}
	}
	return at
}

func (s *stream) Reuse(b kernels.Buffer, cols int) kernels.Buffer {
	from := of(b)
	if cols > from.cols {
		panic(fmt.Sprintf("reuse: %d columns do not fit in %d", cols, from.cols))
	}
	return &buffer{cols: cols, kind: from.kind, perSequence: from.perSequence, at: from.at}
}

// Profile makes p what operations are added to as they run.
func (s *stream) Profile(p *kernels.Profile) {
	s.profile = p
}

// clock measures, for the profile, from its call to that of what it returns.
func (s *stream) clock(o kernels.Op) (stop func()) {
	if s.profile == nil {
		return func() {}
	}
	start := time.Now()
	return func() {
		took := time.Since(start)
		name, flops := kernels.Describe(o, s.batch)
		s.profile.Add(name, flops, took)
	}
}

func (s *stream) Begin(b kernels.Batch) {
	if s.err == nil {
		s.err = s.limits.Check(b)
	}
	s.batch = b
	s.heads.stale = true
}

// Submit has nothing left to wait for.
func (s *stream) Submit() (wait func() error) {
	err := s.err
	s.err = nil
	return func() error { return err }
}

func (s *stream) Wait() error { return s.Submit()() }

func (s *stream) Close() error { return s.buffers.free() }

// accepts reports whether the operation should run; if its shapes do not fit,
// the error sticks.
func (s *stream) accepts(o kernels.Op) bool {
	if s.err == nil {
		s.err = o.Check(s.batch)
	}
	return s.err == nil
}

func (s *stream) Write(dst kernels.Buffer, src []float32) {
	if s.err == nil {
		s.err = kernels.CheckCopy("write", s.batch, dst, src)
	}
	if s.err == nil {
		copy(of(dst).at, src)
	}
}

func (s *stream) Read(dst []float32, src kernels.Buffer) {
	if s.err == nil {
		s.err = kernels.CheckCopy("read", s.batch, src, dst)
	}
	if s.err == nil {
		copy(dst, of(src).at)
	}
}

// rowsPerTask bounds the rows of one task of an operation that works row by
// row, so that a task takes microseconds and the crew shares them evenly.
const rowsPerTask = 32

// eachRow calls do for every token's row, in parallel.
func (s *stream) eachRow(do func(worker, t int)) {
	t := len(s.batch.IDs)
	s.crew.run((t+rowsPerTask-1)/rowsPerTask, func(worker, task int) {
		for i := task * rowsPerTask; i < min((task+1)*rowsPerTask, t); i++ {
			do(worker, i)
		}
	})
}
