package transformer

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// Pooling determines the embeddings that are made from a sequence's hidden states.
type Pooling string

// The poolings. Mean and Max cover the same tokens: all tokens if Family.MeanOfSpecial is set, and all but the special
// tokens if not.
const (
	Mean     Pooling = "mean"     // the mean of the states of the covered tokens
	Max      Pooling = "max"      // the maximum of the states of the covered tokens, column by column
	CLS      Pooling = "cls"      // the state of the first token
	Residues Pooling = "residues" // the state of every token that is not special
	Tokens   Pooling = "tokens"   // the state of every token, including special tokens
)

// Column is an embedding that can be computed for a sequence: the hidden states after one block, pooled.
type Column struct {
	Pooling Pooling
	Layer   int // block number, as returned by ResolveLayers
}

// Columns returns a column for each pooling and layer, pooling by pooling.
func Columns(layers []int, poolings ...Pooling) (list []Column) {
	for _, p := range poolings {
		for _, layer := range layers {
			list = append(list, Column{p, layer})
		}
	}
	return list
}

// ResolveLayers translates the layer numbers that a user gives to block numbers. The argument blocks is the number of
// blocks. Layer 0 is the output of the token embedding, and layer n is the output of block n. A negative number counts
// from the end, as in Python, so −1 is the last block. A number out of range, a repeated layer and an empty list are
// errors.
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
	outputs []Column // the pooling and layer of each output of the program
	limits  kernels.Limits
	columns []Column
	runner  kernels.Runner // nil after Close and after an error of Compile
}

// Program returns the forward pass of the model m with all outputs from which an Encoder computes the given columns. It
// omits the blocks after the highest layer of a column.
func Program(m *Model, columns []Column) *kernels.Program {
	p, _ := program(m, columns)
	return p
}

// program returns the result of Program and, for each output, its pooling and layer. The poolings Mean and CLS are
// computed on the device, as outputs with one row for each sequence. All other poolings of a layer share one output
// with one row for each token. The pooling of that output is Tokens. The Encoder derives the other poolings from it.
func program(m *Model, columns []Column) (p *kernels.Program, outputs []Column) {
	last := 0
	for _, c := range columns {
		last = max(last, c.Layer)
	}
	p = &kernels.Program{}
	m.build(p, last, func(block int, x kernels.Value) {
		for _, c := range columns {
			if c = output(c); c.Layer != block || slices.Contains(outputs, c) {
				continue
			}
			outputs = append(outputs, c)
			if c.Pooling == Tokens {
				p.Output(x)
			} else {
				p.Output(p.Pool(x, covered(m.config.Family, c.Pooling)))
			}
		}
	})
	return p, outputs
}

// output returns the pooling and layer of the program's output from which the column c is made.
func output(c Column) Column {
	if c.Pooling != Mean && c.Pooling != CLS {
		c.Pooling = Tokens
	}
	return c
}

// NewEncoder returns an Encoder that computes columns with the model m on the backend b, for batches within limits.
func NewEncoder(m *Model, b kernels.Backend, limits kernels.Limits, columns []Column) (*Encoder, error) {
	e := &Encoder{model: m, backend: b, columns: columns}
	e.program, e.outputs = program(m, columns)
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

// Encode runs the batch and returns a matrix for each column. The matrix is [tokens, hidden] for Residues and Tokens,
// and [sequences, hidden] for the other poolings. The matrix for Residues includes the states of special tokens;
// Family.Covered tells which rows of a sequence to use. Matrices may share memory. After an error that wraps
// kernels.ErrOutOfMemory a smaller batch may succeed.
func (e *Encoder) Encode(b kernels.Batch) ([][]float32, error) { return e.Start(b)() }

// Start starts a batch and may return before the batch is computed. The function finish waits for the batch and returns
// the results of Encode. If the batch exceeds the limits of the encoder, Start compiles the program for larger limits.
// All earlier batches must have been finished before a call with such a batch.
func (e *Encoder) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	if err := e.fit(b); err != nil {
		return func() ([][]float32, error) { return nil, err }
	}
	dst := make([][]float32, len(e.outputs))
	for i, c := range e.outputs {
		rows := b.Sequences()
		if c.Pooling == Tokens {
			rows = len(b.IDs)
		}
		dst[i] = make([]float32, rows*e.model.config.Hidden)
	}
	wait := e.runner.Start(b, dst)
	return func() ([][]float32, error) {
		if err := wait(); err != nil {
			return nil, err
		}
		results := make([][]float32, len(e.columns))
		for i, c := range e.columns {
			results[i] = dst[slices.Index(e.outputs, output(c))]
			if c.Pooling == Max {
				results[i] = e.maxima(results[i], b.CuSeqlens)
			}
		}
		return results, nil
	}
}

// maxima returns the maximum of each sequence in a batch, column by column, as a matrix [sequences, hidden]. states is
// [tokens, hidden]. The tokens that the pooling Max does not cover are left out.
func (e *Encoder) maxima(states []float32, cuSeqlens []int32) []float32 {
	dim := e.model.config.Hidden
	out := make([]float32, 0, (len(cuSeqlens)-1)*dim)
	for s := range len(cuSeqlens) - 1 {
		first, end := int(cuSeqlens[s]), int(cuSeqlens[s+1])
		from, to := e.model.config.Family.Covered(Max, end-first)
		out = append(out, states[(first+from)*dim:(first+from+1)*dim]...)
		top := out[len(out)-dim:]
		for t := first + from + 1; t < first+to; t++ {
			for c, v := range states[t*dim:][:len(top)] { // with this length the compiler omits bounds checks
				top[c] = max(top[c], v) // NaN stays NaN
			}
		}
	}
	return out
}

// Watch prepares the encoder for a batch, as Start does. While the batch is computed, the function done returns the
// part of its arithmetic that has been computed, from 0 to 1. Any goroutine may call done. Watch returns nil if the
// backend does not know that part, or if the program cannot be compiled for the batch.
func (e *Encoder) Watch(b kernels.Batch) (done func() float64) {
	if e.fit(b) != nil {
		return nil
	}
	if r, ok := e.runner.(interface{ Done() float64 }); ok {
		return r.Done
	}
	return nil
}

// fit compiles the program for larger limits if the batch exceeds the current limits, or again if there is no runner.
// If that fails, it compiles the program for the previous limits.
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
		// Without a runner a smaller batch cannot run either, so the returned error does not wrap
		// kernels.ErrOutOfMemory.
		return fmt.Errorf("%v; compiling again for the earlier limits failed, too: %v", err, back)
	}
	return err
}

// Covered returns the range [from, to) of tokens that a pooling covers in a sequence of n tokens, special tokens
// included. The pooling averages the states of these tokens, takes their maximum, or keeps them.
func (f *Family) Covered(p Pooling, n int) (from, to int) { return covered(f, p).Of(n) }

func covered(f *Family, p Pooling) kernels.Range {
	residues := kernels.Range{Skip: f.Before, Trim: f.After}
	switch {
	case p == CLS:
		return kernels.Range{Limit: 1}
	case p == Tokens:
		return kernels.Range{}
	case p == Residues:
		return residues
	case f.MeanOfSpecial:
		return kernels.Range{}
	}
	return residues
}

// Close frees the memory for activations. Every batch that was started must have been finished.
func (e *Encoder) Close() error {
	if e.runner == nil {
		return nil
	}
	err := e.runner.Close()
	e.runner = nil
	return err
}
