// Package kernels is the seam between the models and the hardware: a forward pass as a value. A model builds a Program
// once, a straight line of five operations on values; a backend compiles it once; a batch runs it. So each model is
// written once and runs on every backend, and memory, precision and lifetimes follow from the operations and are never
// stated.
//
// A batch is packed: the tokens of all its sequences lie end to end, and cu_seqlens says where each begins. There is no
// padding and no mask. A value is a row-major matrix with one row a token; T below is the number of tokens in the batch
// and S the number of sequences.
//
// The package knows neither a model nor a file format, and no backend: it holds the vocabulary that they share, the
// checks of shapes, and the plan of a program's memory.
package kernels

import (
	"errors"
	"fmt"
)

// Backend is one device. Its methods may be called from any goroutine.
type Backend interface {
	// Name identifies the backend, the instruction set or device and what else decides the bits of its results, for
	// logs and manifests.
	Name() string
	// NewModel returns an empty set of weights on the device.
	NewModel() Model
	// Compile makes a program ready to run on batches within limits, with all the memory that it needs. Its error is
	// the first mistake of the program, as an *OpError, or that the device cannot run it, or ErrOutOfMemory. The
	// weights of the program have to be of this backend.
	Compile(p *Program, l Limits) (Runner, error)
	// Close lets go of the device. Every runner and model has to be closed before.
	Close() error
}

// Model is a set of weights that are freed together.
type Model interface {
	// Load copies the parts, stacked by rows in the order given, to the device in the layout that role needs. The
	// sources are not kept. Errors come from the sources, from shapes that do not stack, or are ErrOutOfMemory.
	Load(role Role, parts ...Source) (Weight, error)
	// Close frees the weights. Every runner of a program that reads them has to be closed before.
	Close() error
}

// Runner is a compiled program with its activations and its scratch. It belongs to one goroutine at a time.
type Runner interface {
	// Start runs the program on a batch and may return before it has run. wait waits until it has and dst holds the
	// results; it gives the error, which may be an *OpError. Neither b nor dst may be touched before. dst has a slice
	// for each Output of the program, of exactly S rows where the value has one row a sequence and T rows otherwise.
	//
	// The next batch may be started before the last one has been waited for, so that a device need not wait for the
	// host. Each wait is to be called once, in the order of the Starts. A batch that fails does not harm the next.
	//
	// This is the only promise about order and waiting; other levels pass it on.
	Start(b Batch, dst [][]float32) (wait func() error)
	// Profile makes p the profile that the operations of batches started from here on are added to, once they have been
	// waited for; nil ends it. Measuring costs some time itself. It reports whether the backend measures at all.
	Profile(p *Profile) bool
	// Close frees what Compile allocated. Every batch has to be waited for before.
	Close() error
}

// Source is a tensor on the host from which a weight is loaded. A row is its last dimension; a tensor of one dimension
// is a single row.
type Source interface {
	// Shape gives the dimensions, outermost first.
	Shape() []int
	// ReadRows decodes the rows from first on into dst, as many as it holds.
	ReadRows(dst []float32, first int) error
}

// Role says what a weight is for, and so how a backend lays it out.
type Role uint8

const (
	// Projection is the W [out, in] of a Linear.
	Projection Role = iota + 1
	// Lookup is the table [vocabulary, columns] of an Embed.
	Lookup
	// Vector is a bias, a gain or a type row: [1, columns], kept as float32.
	Vector
)

// String gives the role's name in lower case.
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

// Weight is a loaded tensor, valid until its model is closed.
type Weight interface {
	// Role is the one it was loaded for.
	Role() Role
	// Dims gives its rows and columns.
	Dims() (rows, cols int)
}

// StackedDims gives the rows and columns of parts laid one below the other, and checks that they have the dimensions
// that role asks for: two, or one for a vector. Vectors are joined end to end.
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
			return 0, 0, fmt.Errorf("part %d has shape %v, and a %s has %d dimensions", i, shape, role, want)
		}
		for _, d := range shape {
			if d < 1 {
				return 0, 0, fmt.Errorf("part %d has shape %v, with an empty dimension", i, shape)
			}
		}
		switch {
		case role == Vector:
			rows, cols = 1, cols+shape[0]
		case i > 0 && shape[1] != cols:
			return 0, 0, fmt.Errorf("part %d has %d columns and the one before it %d", i, shape[1], cols)
		default:
			rows, cols = rows+shape[0], shape[1]
		}
	}
	return rows, cols, nil
}

// ErrOutOfMemory is in the chain of an error that a smaller batch may avoid.
var ErrOutOfMemory = errors.New("out of memory")

// OpError is an error of one operation.
type OpError struct {
	Op     string // the operation's name, in lower case
	Shapes string // its shapes, for example "[T 768]·[2304 768]ᵀ"
	Err    error
}

// Error names the operation, the shapes and the cause.
func (e *OpError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Shapes, e.Err) }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }
