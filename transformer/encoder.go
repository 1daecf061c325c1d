package transformer

import (
	"errors"
	"fmt"
	"slices"

	"seqembed/kernels"
)

// Pooling says what becomes of a sequence's hidden states.
type Pooling string

const (
	// Mean averages the states: over the residues for ESM-2, over every
	// token, [CLS] and [SEP] included, for DNABERT-S.
	Mean Pooling = "mean"
	// CLS takes the first token's state.
	CLS Pooling = "cls"
	// PerToken keeps every token's state, special tokens included.
	PerToken Pooling = "none"
)

// ParsePooling reads a --pool value.
func ParsePooling(s string) (Pooling, error) {
	if p := Pooling(s); slices.Contains([]Pooling{Mean, CLS, PerToken}, p) {
		return p, nil
	}
	return "", fmt.Errorf("pooling %q is none of mean, cls, none", s)
}

// ResolveLayers turns block numbers into numbers from 0, the embedding, to
// blocks, the last hidden state; −1 is the last, as in Python.
func ResolveLayers(layers []int, blocks int) ([]int, error) {
	var list []int
	for _, l := range layers {
		n := l
		if n < 0 {
			n += blocks + 1
		}
		switch {
		case n < 0 || n > blocks:
			return nil, fmt.Errorf("layer %d: the model has layers 0 (the embedding) to %d, or %d to -1", l, blocks, -blocks-1)
		case slices.Contains(list, n):
			return nil, fmt.Errorf("layer %d is asked for twice", n)
		}
		list = append(list, n)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("at least one layer has to be asked for")
	}
	return list, nil
}

// Encoder runs a model over batches. It owns a stream and belongs to one
// goroutine at a time.
//
// Start gives a batch to the device, so that several may be under way and the
// device need not wait for the host; Encode runs one at a time.
type Encoder struct {
	model   Model
	backend kernels.Backend
	limits  kernels.Limits
	pooling Pooling
	layers  []int // resolved
	last    int   // the highest of them: blocks after it are not run

	profile *kernels.Profile // or nil

	pending []*started // in the order of their Start
	stream  kernels.Stream
	pass    pass
	pooled  kernels.Buffer // [S, h], nil when PerToken
}

// started is a batch that is under way.
type started struct {
	wait    func() error
	results [][]float32
	done    bool
	err     error
}

// NewEncoder allocates the activations for batches within limits. layers are
// resolved block numbers, see ResolveLayers.
func NewEncoder(m Model, b kernels.Backend, limits kernels.Limits, p Pooling, layers []int) (*Encoder, error) {
	e := &Encoder{model: m, backend: b, pooling: p, layers: layers, last: slices.Max(layers)}
	return e, e.allocate(limits)
}

func (e *Encoder) allocate(limits kernels.Limits) error {
	if err := e.Close(); err != nil {
		return err
	}
	s, err := e.backend.NewStream(limits)
	if err != nil {
		return fmt.Errorf("a stream for %d tokens: %w", limits.Tokens, err)
	}
	e.stream = s
	e.Profile(e.profile)
	e.pass = e.model.newPass(s)
	if e.pooling != PerToken {
		e.pooled = s.Sequences(e.model.Config().Hidden)
	}
	if err := s.Wait(); err != nil {
		return errors.Join(fmt.Errorf("activations for %d tokens: %w", limits.Tokens, err), e.Close())
	}
	e.limits = limits
	return nil
}

// Dim is the width of an embedding.
func (e *Encoder) Dim() int { return e.model.Config().Hidden }

// Limits is the largest batch that fits without growing.
func (e *Encoder) Limits() kernels.Limits { return e.limits }

// Encode runs the batch and returns, for each layer, its embeddings: [S, Dim],
// or [T, Dim] when PerToken. A batch over the limits makes the encoder grow.
// The error may be kernels.ErrOutOfMemory, after which a smaller batch works.
func (e *Encoder) Encode(b kernels.Batch) ([][]float32, error) { return e.Start(b)() }

// Start begins what Encode does and returns what waits for its results, to be
// called once, in the order of the Starts. b must not change before.
func (e *Encoder) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	if e.stream == nil || !e.limits.Holds(b) {
		for len(e.pending) > 0 { // the stream that they run on goes
			e.settle(e.pending[0])
		}
		grown := kernels.Limits{Tokens: max(e.limits.Tokens, len(b.IDs)), Sequences: max(e.limits.Sequences, b.Sequences())}
		if err := e.allocate(grown); err != nil {
			if back := e.allocate(e.limits); back != nil {
				// No batch of any size can run now: that is no lack of memory
				// for this one.
				err = fmt.Errorf("%v, and the memory that was there before is gone: %v", err, back)
			}
			return func() ([][]float32, error) { return nil, err }
		}
	}
	s := &started{results: e.enqueue(b)}
	s.wait = e.stream.Submit()
	e.pending = append(e.pending, s)
	return func() ([][]float32, error) {
		e.settle(s)
		if s.err != nil {
			return nil, s.err
		}
		return s.results, nil
	}
}

// settle waits for a batch, the first that is pending, unless that was done.
func (e *Encoder) settle(s *started) {
	if !s.done {
		s.done, s.err = true, s.wait()
		e.pending = slices.DeleteFunc(e.pending, func(p *started) bool { return p == s })
	}
}

// enqueue sends the forward pass to the stream and returns where its results
// will be.
func (e *Encoder) enqueue(b kernels.Batch) [][]float32 {
	rows := b.Sequences()
	if e.pooling == PerToken {
		rows = len(b.IDs)
	}
	results := make([][]float32, len(e.layers))
	e.stream.Begin(b)
	e.pass.forward(e.last, func(block int, x kernels.Buffer) {
		i := slices.Index(e.layers, block)
		if i < 0 {
			return
		}
		results[i] = make([]float32, rows*e.Dim())
		if e.pooling == PerToken {
			e.stream.Read(results[i], x)
			return
		}
		e.stream.Pool(e.poolOp(x))
		e.stream.Read(results[i], e.pooled)
	})
	return results
}

// Profile adds the times of the operations of later batches to p, or ends that
// when p is nil. It reports whether the backend measures them.
func (e *Encoder) Profile(p *kernels.Profile) bool {
	e.profile = p
	s, ok := e.stream.(kernels.Profiler)
	if ok {
		s.Profile(p)
	}
	return ok
}

// Averaged is the number of tokens whose mean is the embedding of a sequence
// of n tokens.
func (e *Encoder) Averaged(n int) int {
	from, to := e.poolOp(nil).Range(n)
	return to - from
}

func (e *Encoder) poolOp(x kernels.Buffer) kernels.Pool {
	o := kernels.Pool{Out: e.pooled, In: x}
	switch {
	case e.pooling == CLS:
		o.Limit = 1
	case e.model.Config().Architecture == ESM2:
		o.Skip, o.Trim = 1, 1 // <cls> and <eos>
	}
	return o
}

// Close frees the stream and the activations, after what is under way.
func (e *Encoder) Close() error {
	if e.stream == nil {
		return nil
	}
	for len(e.pending) > 0 {
		e.settle(e.pending[0])
	}
	err := e.stream.Close()
	e.stream, e.pass, e.pooled = nil, nil, nil
	return err
}
