package kernels

import (
	"errors"
	"fmt"
)

// ErrOutOfMemory is in the chain of an error that a smaller batch may avoid.
var ErrOutOfMemory = errors.New("out of memory")

// OpError is the error that waiting for a stream returns.
type OpError struct {
	Op     string // the operation's name, in lower case
	Shapes string // its shapes, for example "[512 768]·[2304 768]ᵀ"
	Err    error
}

// Error names the operation, the shapes and the cause.
func (e *OpError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Shapes, e.Err) }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

// An Op is one of the operation structs. Backends call Check before they run
// one, so that every backend refuses the same mistakes with the same words.
type Op interface {
	// Check returns nil, or an *OpError that says which shapes do not fit.
	Check(b Batch) error
}

func mismatch(op, shapes, format string, args ...any) error {
	return &OpError{Op: op, Shapes: shapes, Err: fmt.Errorf(format, args...)}
}

// Check verifies that b is a packed batch within the limits.
func (l Limits) Check(b Batch) error {
	shapes := fmt.Sprintf("[%d tokens, %d sequences]", len(b.IDs), b.Sequences())
	if b.Sequences() == 0 || b.CuSeqlens[0] != 0 || int(b.CuSeqlens[b.Sequences()]) != len(b.IDs) {
		return mismatch("batch", shapes, "cu_seqlens has to run from 0 to the number of tokens")
	}
	for s := range b.Sequences() {
		if b.CuSeqlens[s+1] <= b.CuSeqlens[s] {
			return mismatch("batch", shapes, "sequence %d is empty", s)
		}
	}
	if !l.Holds(b) {
		return mismatch("batch", shapes, "over the stream's limits of %d tokens and %d sequences", l.Tokens, l.Sequences)
	}
	return nil
}

// Check verifies shapes, roles and that every id is a row of the table.
func (o Embed) Check(b Batch) error {
	shapes := fmt.Sprintf("%s = %s", dims(o.Out), wdims(o.Table))
	rows, cols, err := weight(o.Table, Lookup)
	switch {
	case err != nil:
		return mismatch("embed", shapes, "table: %w", err)
	case !perToken(o.Out, cols):
		return mismatch("embed", shapes, "the output needs a row of %d columns for each token", cols)
	case o.Type != nil && !isVector(o.Type, cols):
		return mismatch("embed", shapes, "the type row %s needs %d columns", wdims(o.Type), cols)
	}
	for t, id := range b.IDs {
		if id < 0 || int(id) >= rows {
			return mismatch("embed", shapes, "token %d has id %d, outside the vocabulary of %d", t, id, rows)
		}
	}
	return nil
}

// Check verifies shapes, roles and kinds.
func (o Linear) Check(Batch) error {
	shapes := fmt.Sprintf("%s = %s·%sᵀ", dims(o.Out), dims(o.In), wdims(o.W))
	out, in, err := weight(o.W, Projection)
	switch {
	case err != nil:
		return mismatch("linear", shapes, "weight: %w", err)
	case !perToken(o.In, in) || o.In.Kind()&Operand == 0:
		return mismatch("linear", shapes, "the input needs %d columns of kind operand", in)
	case o.Then > GEGLU:
		return mismatch("linear", shapes, "there is no %s", o.Then)
	case o.Then == GEGLU && out%2 != 0:
		return mismatch("linear", shapes, "a gate needs an even number of columns")
	case !perToken(o.Out, o.Then.Cols(out)) || o.Out == o.In:
		return mismatch("linear", shapes, "the output needs %d columns and memory of its own", o.Then.Cols(out))
	case o.Bias != nil && !isVector(o.Bias, out):
		return mismatch("linear", shapes, "the bias %s needs %d columns", wdims(o.Bias), out)
	case o.Add != nil && o.Then != Identity:
		return mismatch("linear", shapes, "%s and a residual exclude each other", o.Then)
	case o.Add != nil && (!perToken(o.Add, out) || o.Add.Kind()&Residual == 0):
		return mismatch("linear", shapes, "the residual %s needs %d columns of kind residual", dims(o.Add), out)
	}
	return nil
}

// Check verifies shapes, roles and kinds.
func (o Norm) Check(Batch) error {
	shapes := fmt.Sprintf("%s = %s", dims(o.Out), dims(o.In))
	switch {
	case o.In == nil || !perToken(o.In, o.In.Cols()) || o.In.Kind()&Residual == 0:
		return mismatch("norm", shapes, "the input has to be a residual with one row a token")
	case !perToken(o.Out, o.In.Cols()):
		return mismatch("norm", shapes, "the output needs %d columns", o.In.Cols())
	case o.Add != nil && (!perToken(o.Add, o.In.Cols()) || o.Add.Kind()&Residual == 0):
		return mismatch("norm", shapes, "the residual %s needs %d columns of kind residual", dims(o.Add), o.In.Cols())
	case !isVector(o.Gain, o.In.Cols()) || !isVector(o.Bias, o.In.Cols()):
		return mismatch("norm", shapes, "gain %s and bias %s need %d columns", wdims(o.Gain), wdims(o.Bias), o.In.Cols())
	case !(o.Eps > 0):
		return mismatch("norm", shapes, "eps is %v and has to be positive", o.Eps)
	}
	return nil
}

// Check verifies shapes and kinds.
func (o Attention) Check(Batch) error {
	shapes := fmt.Sprintf("%s = %s, %d heads", dims(o.Out), dims(o.QKV), o.Heads)
	switch {
	case o.Heads < 1 || o.Out == nil || o.Out.Cols()%o.Heads != 0:
		return mismatch("attention", shapes, "the output's columns have to be a multiple of the heads")
	case !perToken(o.Out, o.Out.Cols()) || !perToken(o.QKV, 3*o.Out.Cols()) || o.QKV.Kind()&Operand == 0:
		return mismatch("attention", shapes, "qkv needs three times the output's columns, of kind operand")
	case o.Slopes != nil && len(o.Slopes) != o.Heads:
		return mismatch("attention", shapes, "%d slopes for %d heads", len(o.Slopes), o.Heads)
	case o.Rotary != nil && o.Out.Cols() != o.Heads*2*len(o.Rotary.InvFreq):
		return mismatch("attention", shapes, "%d rotary frequencies for heads of %d columns", len(o.Rotary.InvFreq), o.Out.Cols()/o.Heads)
	}
	return nil
}

// Check verifies shapes, kinds and that no sequence has an empty range.
func (o Pool) Check(b Batch) error {
	shapes := fmt.Sprintf("%s = %s[%d:-%d]", dims(o.Out), dims(o.In), o.Skip, o.Trim)
	switch {
	case o.In == nil || !perToken(o.In, o.In.Cols()) || o.In.Kind()&Residual == 0:
		return mismatch("pool", shapes, "the input has to be a residual with one row a token")
	case o.Out == nil || !o.Out.PerSequence() || o.Out.Cols() != o.In.Cols():
		return mismatch("pool", shapes, "the output needs one row of %d columns a sequence", o.In.Cols())
	case o.Skip < 0 || o.Trim < 0:
		return mismatch("pool", shapes, "a range cannot begin before its sequence or end after it")
	}
	for s := range b.Sequences() {
		if from, to := o.Range(b.Len(s)); from >= to {
			return mismatch("pool", shapes, "sequence %d of %d tokens has none in the range", s, b.Len(s))
		}
	}
	return nil
}

// CheckCopy verifies the host side of a Write or Read called op.
func CheckCopy(op string, b Batch, device Buffer, host []float32) error {
	shapes := fmt.Sprintf("%s, %d values", dims(device), len(host))
	if device == nil || len(host) != Rows(b, device)*device.Cols() {
		return mismatch(op, shapes, "the host side needs exactly the batch's rows")
	}
	return nil
}

// Rows is the number of rows that a buffer has for a batch: T, or S.
func Rows(b Batch, buf Buffer) int {
	if buf.PerSequence() {
		return b.Sequences()
	}
	return len(b.IDs)
}

// StackedDims gives the rows and columns of parts laid one below the other,
// and checks that they have the dimensions that role asks for: two, or one for
// a vector. Vectors are joined end to end.
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

func perToken(b Buffer, cols int) bool {
	return b != nil && !b.PerSequence() && b.Cols() == cols
}

func weight(w Weight, role Role) (rows, cols int, err error) {
	if w == nil {
		return 0, 0, errors.New("missing")
	}
	if w.Role() != role {
		return 0, 0, fmt.Errorf("loaded as %s, needed as %s", w.Role(), role)
	}
	rows, cols = w.Dims()
	return rows, cols, nil
}

func isVector(w Weight, cols int) bool {
	_, c, err := weight(w, Vector)
	return err == nil && c == cols
}

func dims(b Buffer) string {
	if b == nil {
		return "[]"
	}
	if b.PerSequence() {
		return fmt.Sprintf("[S %d]", b.Cols())
	}
	return fmt.Sprintf("[T %d]", b.Cols())
}

func wdims(w Weight) string {
	if w == nil {
		return "[]"
	}
	rows, cols := w.Dims()
	return fmt.Sprintf("[%d %d]", rows, cols)
}
