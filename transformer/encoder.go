package transformer

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// Pooling determines the embeddings that are made from a sequence's hidden states.
type Pooling string

const (
	// Mean averages the states of all tokens. Depending on the family, special tokens are included or not.
	Mean Pooling = "mean"
	// CLS is the state of the first token.
	CLS Pooling = "cls"
	// PerToken keeps the state of every token, including special tokens.
	PerToken Pooling = "none"
)

// ResolveLayers returns the block numbers of layers. A negative number counts from the end, as in Python. 0 is the
// embedding. The last hidden state has the number blocks, or −1.
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

// Encoder runs a model on batches. Only one goroutine at a time may use it.
type Encoder struct {
	model   *Model
	backend kernels.Backend
	program *kernels.Program
	limits  kernels.Limits
	pooling Pooling
	layers  []int          // block numbers, not negative
	runner  kernels.Runner // nil after an error of Compile
}

// Program returns a model's forward pass with one output for each layer, in the order of the blocks. An output is [T,
// Dim] if p is PerToken, otherwise [S, Dim]. layers must be results of ResolveLayers. The program omits the blocks
// after the highest of them.
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

// Encode runs the batch and returns its embeddings for each layer: [T, Dim] if PerToken, otherwise [S, Dim]. After an
// error that wraps kernels.ErrOutOfMemory a smaller batch may succeed.
func (e *Encoder) Encode(b kernels.Batch) ([][]float32, error) { return e.Start(b)() }

// Start starts a batch, as kernels.Runner.Start does. The function finish returns the same results as Encode. If a
// batch is over the limits, the encoder is compiled again, and all earlier batches must have been finished before.
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

// Watch prepares the encoder for a batch, as Start does. While the batch is computed, the function done returns the
// part of its arithmetic that has been computed, from 0 to 1. Any goroutine may call done. Watch returns nil if the
// backend does not know that part, or if Start will return an error.
func (e *Encoder) Watch(b kernels.Batch) (done func() float64) {
	if e.fit(b) != nil {
		return nil
	}
	if r, ok := e.runner.(interface{ Done() float64 }); ok {
		return r.Done
	}
	return nil
}

// fit compiles the program for larger limits if the batch exceeds the current limits.
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
		// No batch can run any more, so this error is not a kernels.ErrOutOfMemory, which would mean that a smaller
		// batch may succeed.
		return fmt.Errorf("%v, and the memory that was there before is gone: %v", err, back)
	}
	return err
}

// Averaged returns the number of tokens over which the embedding of a sequence of n tokens is averaged.
func (e *Encoder) Averaged(n int) int {
	from, to := pooled(e.model.config.Family, e.pooling).Of(n)
	return to - from
}

// pooled returns the range of a sequence's tokens that a pooling averages.
func pooled(f *Family, p Pooling) kernels.Range {
	switch {
	case p == CLS:
		return kernels.Range{Limit: 1}
	case f.MeanOfSpecial:
		return kernels.Range{}
	}
	return kernels.Range{Skip: f.Before, Trim: f.After}
}

// Close frees the activations. Every started batch must have been finished.
func (e *Encoder) Close() error {
	if e.runner == nil {
		return nil
	}
	err := e.runner.Close()
	e.runner = nil
	return err
}
