// Package kernels is the seam between the models and the hardware: five
// fused operations over packed, variable-length batches, so that each
// model is written once and runs on every backend.
//
// A batch is packed: the tokens of all its sequences lie end to end, and
// cu_seqlens says where each begins. There is no padding and no mask.
// An activation is a row-major matrix with one row a token; T below is the
// number of tokens in the batch and S the number of sequences.
//
// The package knows neither a model nor a file format, and no backend: it
// holds the vocabulary that they share, and the checks of shapes that every
// backend runs before an operation.
package kernels

// Backend is one device that holds weights and runs streams. Its methods may
// be called from any goroutine.
type Backend interface {
	// Name identifies the backend, the instruction set or device and what
	// else decides the bits of its results, for logs and manifests.
	Name() string

	// Load copies the parts, stacked by rows in the order given, to the
	// device in the layout that role needs. The sources are not kept. Errors
	// come from the sources, from shapes that do not stack, or are
	// ErrOutOfMemory.
	Load(role Role, parts ...Source) (Weight, error)

	// NewStream returns a stream that accepts batches within limits.
	NewStream(limits Limits) (Stream, error)

	// Close frees the weights. Every stream has to be closed before.
	Close() error
}

// Source is a tensor on the host from which a weight is loaded. A row is its
// last dimension; a tensor of one dimension is a single row.
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

// Weight is a loaded tensor, valid until its backend is closed.
type Weight interface {
	// Role is the one it was loaded for.
	Role() Role
	// Dims gives its rows and columns.
	Dims() (rows, cols int)
}

// Kind says in which precision an activation is kept. A buffer may be of both
// kinds: it then holds the values twice where the two types differ, and an
// operation writes both and reads the one that it needs.
type Kind uint8

const (
	// Residual is float32 on every backend: sums that many blocks add to.
	Residual Kind = 1 << iota
	// Operand is the type of the backend's matrix operands: float32 on a
	// CPU, bfloat16 or float16 on a GPU.
	Operand
)

// Buffer is an activation of a stream: one row a token (or a sequence), valid
// until the stream is closed.
type Buffer interface {
	// Cols is the number of columns.
	Cols() int
	// Kind is the precision, or both.
	Kind() Kind
	// PerSequence tells a buffer of S rows from one of T rows.
	PerSequence() bool
}

// Limits is the largest batch that a stream takes.
type Limits struct {
	Tokens    int // special tokens included
	Sequences int
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

// Stream runs operations in the order of the calls on one device. It owns its
// activations and all its scratch, allocated once for its limits.
//
// Operations are enqueued: a method may return before its operation has run.
// The first error sticks until Submit, later calls do nothing, and what Submit returns gives
// that error, which is an *OpError. A stream belongs to one goroutine at a
// time.
//
// Submit ends one batch and leaves the stream free for the next, so that a
// device need not wait for the host between two batches.
type Stream interface {
	// Tokens allocates an activation of one row a token.
	Tokens(cols int, k Kind) Buffer
	// Sequences allocates a float32 matrix of one row a sequence.
	Sequences(cols int) Buffer
	// Reuse returns a buffer of cols columns, at most those of b, over the
	// memory of b, for two activations that are never alive together:
	// writing to one leaves the other's contents undefined.
	Reuse(b Buffer, cols int) Buffer

	// Begin makes b the batch of the operations that follow. b must not
	// change before they have been waited for.
	Begin(b Batch)

	Embed(Embed)
	Linear(Linear)
	Norm(Norm)
	Attention(Attention)
	Pool(Pool)

	// Write copies src, T (or S) rows, into dst.
	Write(dst Buffer, src []float32)
	// Read copies the T (or S) rows of src into dst, which is filled once it
	// has been waited for.
	Read(dst []float32, src Buffer)

	// Submit ends what has been enqueued since the last Submit. The function
	// that it returns waits until that has run and gives its first error; it
	// is to be called once, in the order of the Submits. The next batch may
	// begin and be submitted before.
	Submit() (wait func() error)
	// Wait is Submit()(): it returns when everything enqueued has run.
	Wait() error
	// Close frees the activations and the scratch. Everything submitted has
	// to be waited for before.
	Close() error
}
