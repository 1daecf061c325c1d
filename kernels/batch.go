package kernels

import "fmt"

// Limits is the largest batch that a runner takes.
type Limits struct {
	Tokens    int // special tokens included
	Sequences int
}

// Check refuses limits without room.
func (l Limits) Check() error {
	if l.Tokens < 1 || l.Sequences < 1 {
		return fmt.Errorf("a runner needs room for one token and one sequence, not %+v", l)
	}
	return nil
}

// Holds reports whether a batch of that size fits.
func (l Limits) Holds(b Batch) bool {
	return len(b.IDs) <= l.Tokens && b.Sequences() <= l.Sequences
}

// Batch is a packed batch of token ids.
type Batch struct {
	IDs       []int32 // [T], the sequences end to end, special tokens included
	CuSeqlens []int32 // [S+1], where each sequence begins; the first is 0, the last T
}

// Sequences is S.
func (b Batch) Sequences() int { return max(0, len(b.CuSeqlens)-1) }

// Len is the number of tokens of sequence s.
func (b Batch) Len(s int) int { return int(b.CuSeqlens[s+1] - b.CuSeqlens[s]) }

// Longest is the number of tokens of the longest sequence.
func (b Batch) Longest() int {
	longest := 0
	for s := range b.Sequences() {
		longest = max(longest, b.Len(s))
	}
	return longest
}

// Append adds one sequence at the end.
func (b *Batch) Append(ids []int32) {
	if len(b.CuSeqlens) == 0 {
		b.CuSeqlens = append(b.CuSeqlens, 0)
	}
	b.IDs = append(b.IDs, ids...)
	b.CuSeqlens = append(b.CuSeqlens, int32(len(b.IDs)))
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.IDs, b.CuSeqlens = b.IDs[:0], b.CuSeqlens[:0]
}

// shapes names a batch in an error.
func (b Batch) shapes() string {
	return fmt.Sprintf("[%d tokens, %d sequences]", len(b.IDs), b.Sequences())
}

// CheckRun verifies what Runner.Start is given: a packed batch within the limits, ids that every table has, ranges that
// are not empty, and a slice of the right size for each output. The error is an *OpError.
func (p *Program) CheckRun(l Limits, b Batch, dst [][]float32) error {
	refuse := func(format string, args ...any) error {
		return &OpError{Op: "batch", Shapes: b.shapes(), Err: fmt.Errorf(format, args...)}
	}
	n := b.Sequences()
	if n == 0 || b.CuSeqlens[0] != 0 || int(b.CuSeqlens[n]) != len(b.IDs) {
		return refuse("cu_seqlens has to run from 0 to the number of tokens")
	}
	for s := range n {
		if b.CuSeqlens[s+1] <= b.CuSeqlens[s] {
			return refuse("sequence %d is empty", s)
		}
	}
	if !l.Holds(b) {
		return refuse("over the limits of %d tokens and %d sequences", l.Tokens, l.Sequences)
	}
	for t, id := range b.IDs {
		if id < 0 || int(id) >= p.vocabulary {
			return refuse("token %d has id %d, outside the vocabulary of %d", t, id, p.vocabulary)
		}
	}
	for _, op := range p.ops {
		r, ok := op.Do.(Range)
		for s := 0; ok && s < n; s++ {
			if from, to := r.Of(b.Len(s)); from >= to {
				return &OpError{Op: "pool", Shapes: p.Shapes(op),
					Err: fmt.Errorf("sequence %d of %d tokens has none in the range", s, b.Len(s))}
			}
		}
	}
	if len(dst) != len(p.outputs) {
		return refuse("room for %d results, and the program has %d", len(dst), len(p.outputs))
	}
	for i, v := range p.outputs {
		if want := p.Rows(v, b) * p.Cols(v); len(dst[i]) != want {
			return refuse("result %d has %d values, and there is room for %d", i, want, len(dst[i]))
		}
	}
	return nil
}
