package transformer

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// Pooling says what becomes of a sequence's hidden states.
type Pooling string

const (
	// Mean averages the states, as the family's reference does: over all tokens or all but the special ones.
	Mean Pooling = "mean"
	// CLS takes the first token's state.
	CLS Pooling = "cls"
	// PerToken keeps every token's state, special tokens included.
	PerToken Pooling = "none"
)

// ResolveLayers turns block numbers into numbers from 0, the embedding, to blocks, the last hidden state; −1 is the
// last, as in Python.
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

// Encoder runs a model over batches. It belongs to one goroutine at a time.
type Encoder struct {
	model   *Model
	backend kernels.Backend
	program *kernels.Program
	limits  kernels.Limits
	pooling Pooling
	layers  []int          // resolved
	runner  kernels.Runner // nil after Compile has failed
}

// Program is a model's forward pass with an output for each layer, in the order of the blocks: [T, Dim] when p is
// PerToken, else [S, Dim]. layers are resolved block numbers, see ResolveLayers; blocks after the last of them are left
// out.
func Program(m *Model, p Pooling, layers []int) *kernels.Program {
	program := &kernels.Program{}
	m.build(program, slices.Max(layers), func(block int, x kernels.Value) {
		switch {
		case !slices.Contains(layers, block):
		case p == PerToken:
			program.Output(x)
		default:
			program.Output(program.Pool(x, pooled(m.config.Family, p)))
		}
	})
	return program
}

// NewEncoder compiles a model's program for batches within limits.
func NewEncoder(m *Model, b kernels.Backend, limits kernels.Limits, p Pooling, layers []int) (*Encoder, error) {
	e := &Encoder{model: m, backend: b, program: Program(m, p, layers), pooling: p, layers: layers}
	return e, e.compile(limits)
}

func (e *Encoder) compile(limits kernels.Limits) error {
	if err := e.Close(); err != nil {
		return err
	}
	r, err := e.backend.Compile(e.program, limits)
	if err != nil {
		return fmt.Errorf("compiling for %d tokens: %w", limits.Tokens, err)
	}
	e.runner, e.limits = r, limits
	return nil
}

// Encode runs the batch and returns, for each layer, its embeddings: [S, Dim], or [T, Dim] when PerToken. The error may
// be kernels.ErrOutOfMemory, after which a smaller batch works.
func (e *Encoder) Encode(b kernels.Batch) ([][]float32, error) { return e.Start(b)() }

// Start begins what Encode does, by kernels.Runner.Start. A batch over the limits makes the encoder grow, and may be
// started only when every one before has been waited for.
func (e *Encoder) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	if err := e.fit(b); err != nil {
		return func() ([][]float32, error) { return nil, err }
	}
	rows := b.Sequences()
	if e.pooling == PerToken {
		rows = len(b.IDs)
	}
	results := make([][]float32, len(e.layers))
	var dst [][]float32 // in the order of the blocks
	for block := range slices.Max(e.layers) + 1 {
		if i := slices.Index(e.layers, block); i >= 0 {
			results[i] = make([]float32, rows*e.model.config.Hidden)
			dst = append(dst, results[i])
		}
	}
	wait := e.runner.Start(b, dst)
	return func() ([][]float32, error) {
		if err := wait(); err != nil {
			return nil, err
		}
		return results, nil
	}
}

// Watch makes the encoder ready for a batch, as Start does, and returns a function that reports, while the batch is
// computed, which part of its arithmetic has been done, from 0 to 1. Any goroutine may call it. It is nil where the
// backend does not know, or where Start will return an error.
func (e *Encoder) Watch(b kernels.Batch) (done func() float64) {
	if e.fit(b) != nil {
		return nil
	}
	if r, ok := e.runner.(interface{ Done() float64 }); ok {
		return r.Done
	}
	return nil
}

// fit compiles anew for a batch over the limits.
func (e *Encoder) fit(b kernels.Batch) error {
	if e.runner != nil && e.limits.Holds(b) {
		return nil
	}
	before := e.limits
	err := e.compile(kernels.Limits{Tokens: max(before.Tokens, len(b.IDs)), Sequences: max(before.Sequences, b.Sequences())})
	if err == nil {
		return nil
	}
	if back := e.compile(before); back != nil {
		// No batch of any size can run now: that is no lack of memory for this one.
		return fmt.Errorf("%v, and the memory that was there before is gone: %v", err, back)
	}
	return err
}

// Averaged is the number of tokens whose mean is the embedding of a sequence of n tokens.
func (e *Encoder) Averaged(n int) int {
	from, to := pooled(e.model.config.Family, e.pooling).Of(n)
	return to - from
}

// pooled is the tokens of a sequence that a pooling averages.
func pooled(f *Family, p Pooling) kernels.Range {
	switch {
	case p == CLS:
		return kernels.Range{Limit: 1}
	case f.MeanOfSpecial:
		return kernels.Range{}
	}
	return kernels.Range{Skip: f.Before, Trim: f.After}
}

// Close frees the activations. Every batch has to be waited for before.
func (e *Encoder) Close() error {
	if e.runner == nil {
		return nil
	}
	err := e.runner.Close()
	e.runner = nil
	return err
}
