// Package kernels defines the interface between models and hardware. A forward pass is a value: a model builds a
// Program, a straight-line sequence of operations, and a backend compiles it for a largest batch size. The compiled
// program then runs on each batch. So every model is written once and runs on every backend. The memory of each
// intermediate value, its type and its lifetime follow from the operations; no caller specifies them.
//
// A batch is packed: the tokens of all its sequences are stored end to end, and cu_seqlens holds the offset of each
// sequence. There is no padding and no mask. A value is a row-major matrix with one row per token or one row per
// sequence. Below, T is the number of tokens in the batch and S the number of sequences.
//
// The package depends on no model, file format or backend. It contains the types that models and backends share, the
// checks of shapes, and the memory planner.
package kernels

import (
	"errors"
	"fmt"
)

// Backend is one device. Its methods may be called from any goroutine.
type Backend interface {
	// Name returns the name of the backend for logs and for the manifests of output files. It contains the device or
	// the instruction set, and everything else that determines the bits of the backend's results.
	Name() string
	// NewModel returns an empty set of weights on the device.
	NewModel() Model
	// Compile prepares p for batches within l and allocates memory for its activations. The weights of p must have been
	// loaded on this backend. Compile returns an *OpError for the first mistake in p, an *OpError that wraps
	// ErrUnsupported for an operation that the backend does not compute, the error of l.Check, or an error that wraps
	// ErrOutOfMemory.
	Compile(p *Program, l Limits) (Runner, error)
	// Close releases the device. All its runners and models must have been closed.
	Close() error
}

// Model is a set of weights that are freed together.
type Model interface {
	// Load stacks the parts by rows or, for the role Vector, concatenates them, in the order given. It copies them to
	// the device in the layout that the role requires, and does not retain them. It returns the error of a part that
	// cannot be read, an error for shapes that cannot be stacked, or an error that wraps ErrOutOfMemory.
	Load(role Role, parts ...Source) (Weight, error)
	// Close frees the weights. All runners whose programs read them must have been closed.
	Close() error
}

// Runner is a compiled program with its activations and its workspace. Only one goroutine at a time may use it.
type Runner interface {
	// Start starts the program on a batch; it may return before the program has finished. The function wait blocks
	// until dst holds the results, and returns the error of the run, which may be an *OpError. The caller must not
	// touch b or dst until wait has returned. dst has one slice for each Output of the program, whose length is exactly
	// the number of values in the output (Program.Rows times Program.Cols).
	//
	// The caller may start the next batch before it waits for the previous one, so that a device need not wait for the
	// host. The caller must call each wait exactly once, in the order of the calls to Start. A batch that fails does
	// not affect later batches.
	Start(b Batch, dst [][]float32) (wait func() error)
	// Profile adds to p the timings of every batch that is started after this call, once that batch has been waited
	// for. A nil p stops profiling. Profiling itself takes some time. Profile reports whether the backend supports
	// profiling.
	Profile(p *Profile) bool
	// Close frees the memory that Compile allocated. Every started batch must have been waited for.
	Close() error
}

// Source is a tensor on the host, for example in a file, from which a weight is loaded. A row holds the elements along
// the last dimension; a tensor of one dimension is a single row.
type Source interface {
	// Shape returns the dimensions, outermost first.
	Shape() []int
	// ReadRows decodes consecutive rows into dst until dst is full. The parameter first is the index of the first of
	// these rows.
	ReadRows(dst []float32, first int) error
}

// Role is the purpose of a weight. It determines the layout on the device.
type Role uint8

const (
	// Projection is the matrix W [out, in] of a Linear.
	Projection Role = iota + 1
	// Lookup is the table [vocabulary, columns] of an Embed.
	Lookup
	// Vector is a bias, a gain or a token-type row: [1, columns], always stored as float32.
	Vector
)

// String returns the role's name in lower case.
func (r Role) String() string {
	switch r {
	case Projection:
		return "projection"
	case Lookup:
		return "lookup"
	case Vector:
		return "vector"
	}
	return "no role"
}

// Weight is a loaded tensor. It is valid until its model is closed.
type Weight interface {
	// Role returns the role that the weight was loaded for.
	Role() Role
	// Dims returns the numbers of rows and columns.
	Dims() (rows, cols int)
}

// StackedDims returns the dimensions of the weight that results when the parts are stacked by rows or, for the role
// Vector, concatenated. It returns an error if there are no parts, if a dimension is below 1, if the parts of a matrix
// have different numbers of columns, or if a part has the wrong number of dimensions. The right number is one for a
// Vector and two for any other role.
func StackedDims(role Role, parts []Source) (rows, cols int, err error) {
	if len(parts) == 0 {
		return 0, 0, errors.New("a weight needs at least one part")
	}
	for i, p := range parts {
		shape := p.Shape()
		want := 2
		if role == Vector {
			want = 1
		}
		if len(shape) != want {
			return 0, 0, fmt.Errorf("part %d has shape %v, but a %s has %d dimensions", i, shape, role, want)
		}
		for _, d := range shape {
			if d < 1 {
				return 0, 0, fmt.Errorf("part %d has shape %v, with a dimension below 1", i, shape)
			}
		}
		switch {
		case role == Vector:
			rows, cols = 1, cols+shape[0]
		case i > 0 && shape[1] != cols:
			return 0, 0, fmt.Errorf("part %d has %d columns, but the previous part has %d", i, shape[1], cols)
		default:
			rows, cols = rows+shape[0], shape[1]
		}
	}
	return rows, cols, nil
}

// ReadStacked reads the parts as one matrix, stacked by rows. It decodes consecutive rows into dst until dst is full.
// The parameter first is the index of the first of these rows. Vectors can only be read as a whole, with first = 0.
func ReadStacked(parts []Source, dst []float32, first int) error {
	for _, p := range parts {
		shape := p.Shape()
		rows, cols := shape[0], 1
		if len(shape) == 2 {
			cols = shape[1]
		}
		if first < rows && len(dst) > 0 {
			n := min(len(dst), (rows-first)*cols)
			if err := p.ReadRows(dst[:n], first); err != nil {
				return err
			}
			dst, first = dst[n:], rows
		}
		first -= rows
	}
	return nil
}

// ErrOutOfMemory is wrapped by errors about too little free memory on the backend's device. A smaller batch may avoid
// the error, unless Model.Load returned it.
var ErrOutOfMemory = errors.New("out of memory")

// ErrUnsupported is wrapped by errors about an operation that the backend does not implement. Another backend may
// implement it.
var ErrUnsupported = errors.New("unsupported operation")

// OpError is an error in one operation or in a batch.
type OpError struct {
	Op     string // kind of the operation, for example "linear"
	Shapes string // of the operands, such as "[T 768]·[2304 768]ᵀ", or the size of a batch
	Err    error
}

// Error returns the operation, its shapes and the cause.
func (e *OpError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Shapes, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
