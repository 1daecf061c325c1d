package kernels

import "fmt"

// Limits is the size of the largest batch that a runner accepts.
type Limits struct {
	Tokens    int // of all sequences together, including special tokens
	Sequences int
}

// Check returns an error unless the limits allow at least one token and one sequence.
func (l Limits) Check() error {
	if l.Tokens < 1 || l.Sequences < 1 {
		return fmt.Errorf("the limits must allow at least one token and one sequence, not %+v", l)
	}
	return nil
}

// Holds reports whether b has at most as many tokens and sequences as the limits allow.
func (l Limits) Holds(b Batch) bool {
	return len(b.IDs) <= l.Tokens && b.Sequences() <= l.Sequences
}

// Batch is a batch of sequences of token ids. It is packed: the sequences are stored end to end, without padding. T is
// the number of tokens, S the number of sequences.
type Batch struct {
	IDs       []int32 // [T]: the token ids of all sequences, end to end, including special tokens
	CuSeqlens []int32 // [S+1]: sequence s is IDs[CuSeqlens[s]:CuSeqlens[s+1]]; the first value is 0, the last T
}

// Sequences returns the number of sequences, S.
func (b Batch) Sequences() int { return max(0, len(b.CuSeqlens)-1) }

// Len returns the number of tokens in sequence s.
func (b Batch) Len(s int) int { return int(b.CuSeqlens[s+1] - b.CuSeqlens[s]) }

// Longest returns the number of tokens in the longest sequence.
func (b Batch) Longest() int {
	longest := 0
	for s := range b.Sequences() {
		longest = max(longest, b.Len(s))
	}
	return longest
}

// Append adds a sequence at the end of the batch.
func (b *Batch) Append(ids []int32) {
	if len(b.CuSeqlens) == 0 {
		b.CuSeqlens = append(b.CuSeqlens, 0)
	}
	b.IDs = append(b.IDs, ids...)
	b.CuSeqlens = append(b.CuSeqlens, int32(len(b.IDs)))
}

// Reset empties the batch but keeps its memory for reuse.
func (b *Batch) Reset() {
	b.IDs, b.CuSeqlens = b.IDs[:0], b.CuSeqlens[:0]
}

// shapes returns the size of the batch for an error message.
func (b Batch) shapes() string {
	return fmt.Sprintf("[%d tokens, %d sequences]", len(b.IDs), b.Sequences())
}

// CheckRun checks the arguments of Runner.Start and returns an *OpError for the first mistake. b must be a packed batch
// within the limits l. The ids of b must exist in every lookup table of the program. In every sequence, each range of
// tokens that the program averages must contain at least one token. dst must have a slice of the right length for each
// output.
func (p *Program) CheckRun(l Limits, b Batch, dst [][]float32) error {
	refuse := func(format string, args ...any) error {
		return &OpError{Op: "batch", Shapes: b.shapes(), Err: fmt.Errorf(format, args...)}
	}
	n := b.Sequences()
	if n == 0 || b.CuSeqlens[0] != 0 || int(b.CuSeqlens[n]) != len(b.IDs) {
		return refuse("cu_seqlens must begin with 0 and end with the number of tokens")
	}
	for s := range n {
		if b.CuSeqlens[s+1] <= b.CuSeqlens[s] {
			return refuse("sequence %d is empty", s)
		}
	}
	if !l.Holds(b) {
		return refuse("exceeds the limits of %d tokens and %d sequences", l.Tokens, l.Sequences)
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
					Err: fmt.Errorf("sequence %d of %d tokens has no token in the range", s, b.Len(s))}
			}
		}
	}
	if len(dst) != len(p.outputs) {
		return refuse("dst has %d slices, but the program has %d outputs", len(dst), len(p.outputs))
	}
	for i, v := range p.outputs {
		if want := p.Rows(v, b) * p.Cols(v); len(dst[i]) != want {
			return refuse("result %d has %d values, but its slice has length %d", i, want, len(dst[i]))
		}
	}
	return nil
}
