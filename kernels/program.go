package kernels

import (
	"fmt"
	"slices"
)

// Value identifies an activation of a program: the result of one of its operations. A value never changes. Its memory
// may be used for another value once no operation has to read it any more.
type Value int32

// None means that there is no value.
const None Value = -1

// Program is a forward pass: a straight-line sequence of operations. The first mistake made in building it is kept and
// returned by Err and Compile, so that code that builds a program needs no error handling. A program must not change
// after it has been compiled.
type Program struct {
	ops        []Op
	values     values
	outputs    []Value
	vocabulary int // number of rows of the smallest lookup table
	err        error
}

// values is indexed by Value.
type values []value

type value struct {
	cols               int
	perSequence        bool
	reads              Precision
	definedAt, lastUse int // indices of the operations that compute the value and read it last; equal if none reads it
}

// Op is one operation of a program.
type Op struct {
	Out     Value // None for an Output
	In, Add Value // None if absent
	Do      Operation
}

// Operation is an Embed, Linear, Norm, Attention, Range (for pooling) or Output.
type Operation interface {
	name() string
}

// Embed looks up one row of a table for each token t. id_t is the id of the token and s its sequence:
//
//	out[t] = Table[id_t] · scale_s + Type
//
// scale_s is Scale if Mask < 0. If Mask >= 0, token dropout is on: the rows of tokens with the id Mask are zeroed
// before Type is added, and scale_s = Scale / (1 − share of such tokens in the sequence), as in ESM-2 at inference
// (EsmEmbeddings in transformers' modeling_esm.py).
type Embed struct {
	Table Weight  // Lookup [vocabulary, c]
	Type  Weight  // Vector [1, c], or nil
	Scale float32 // factor of the rows
	Mask  int32   // id of the mask token, or NoMask
}

// NoMask disables token dropout in an Embed.
const NoMask int32 = -1

// Linear is a matrix product with a fused bias, activation and residual sum:
//
//	out = Then(x · Wᵀ + Bias) + add
//
// add is the residual, an argument of Program.Linear. A Linear cannot have both an activation and a residual: no model
// needs both.
type Linear struct {
	W    Weight // Projection [out, in]
	Bias Weight // Vector [1, out], or nil
	Then Activation
}

// Activation is the function that a Linear applies to its product.
type Activation uint8

const (
	// Identity leaves the product as it is.
	Identity Activation = iota
	// GELU is x · Φ(x), where Φ is the normal distribution function. It is not the approximation by tanh.
	GELU
	// GEGLU multiplies the second half of the columns by GELU of the first half (Shazeer 2020): for a product z of 2c
	// columns it is GELU(z[:, :c]) ⊙ z[:, c:].
	GEGLU
)

// Activations lists all activations, with Identity first.
var Activations = [...]Activation{Identity, GELU, GEGLU}

// String returns the name in lower case.
func (a Activation) String() string {
	switch a {
	case Identity:
		return "identity"
	case GELU:
		return "gelu"
	case GEGLU:
		return "geglu"
	}
	return fmt.Sprintf("activation %d", uint8(a))
}

// Gates reports whether a multiplies the second half of the columns by a function of the first half, so that the result
// has half as many columns.
func (a Activation) Gates() bool { return a == GEGLU }

// Cols returns the number of columns of the result for a product of n columns.
func (a Activation) Cols(n int) int {
	if a.Gates() {
		return n / 2
	}
	return n
}

// Norm is a LayerNorm over each row, with the biased variance:
//
//	out = (x − mean(x)) / sqrt(var(x) + Eps) · Gain + Bias
type Norm struct {
	Gain Weight // Vector [1, c]
	Bias Weight // Vector [1, c]
	Eps  float32
}

// Attention is softmax attention within each sequence, without a causal mask. With q, k and v of one head:
//
//	s_ij = Scale · q_i·k_j − Slopes[head] · |i − j|
//	out_i = Σ_j softmax_j(s_ij) · v_j
//
// Slopes are the slopes of ALiBi (Press et al. 2022), applied to the distance |i − j| in both directions; if they are
// nil, the term is left out. If Rotary is set, q and k are first scaled and rotated.
type Attention struct {
	Heads  int
	Scale  float32
	Slopes []float32 // [Heads], or nil
	Rotary *Rotary   // may be nil
}

// Rotary scales the queries by QScale, then rotates queries and keys by their position in the sequence, counted from 0
// (Su et al. 2021, in the half-split form of ESM-2). With θ_j = position · InvFreq[j] and head size d, each vector z
// becomes, for j < d/2,
//
//	z_j     ← z_j · cos θ_j − z_{j+d/2} · sin θ_j
//	z_{j+d/2} ← z_{j+d/2} · cos θ_j + z_j · sin θ_j
//
// The angle θ_j is computed in float32, as in ESM-2's own code.
type Rotary struct {
	QScale  float32
	InvFreq []float32 // [d/2]
}

// Range is the operation of Program.Pool: the mean over a range of the rows of each sequence. The range leaves out the
// first Skip rows and the last Trim rows. If Limit is positive, the range ends after at most Limit rows. A run refuses
// a batch that contains a sequence for which the range is empty.
type Range struct {
	Skip, Trim, Limit int
}

// Of returns the half-open range for a sequence of n tokens, relative to the start of the sequence.
func (r Range) Of(n int) (from, to int) {
	from, to = r.Skip, n-r.Trim
	if r.Limit > 0 {
		to = min(to, from+r.Limit)
	}
	return from, max(from, to)
}

// Output is the operation that copies a value into a result of the run. As a number it is the index of that result in
// the argument dst of Runner.Start.
type Output int

func (Embed) name() string     { return "embed" }
func (Linear) name() string    { return "linear" }
func (Norm) name() string      { return "norm" }
func (Attention) name() string { return "attention" }
func (Range) name() string     { return "pool" }
func (Output) name() string    { return "output" }

// Embed appends an Embed and returns its result [T, c], where c is the number of columns of the table.
func (p *Program) Embed(o Embed) Value {
	rows, cols, err := weight(o.Table, Lookup)
	switch {
	case err != nil:
		p.refuse(o, wdims(o.Table), "table: %w", err)
	case o.Type != nil && !isVector(o.Type, cols):
		p.refuse(o, wdims(o.Table), "the token-type row %s must have %d columns", wdims(o.Type), cols)
	}
	if p.vocabulary == 0 || rows < p.vocabulary {
		p.vocabulary = rows
	}
	return p.add(Op{In: None, Add: None, Do: o}, cols, false)
}

// Linear appends a Linear. If its weight is [out, in], x is [T, in] and add is a residual [T, out] or None. The result
// is [T, out], or [T, out/2] if the activation halves the columns (see Activation.Gates).
func (p *Program) Linear(x Value, o Linear, add Value) Value {
	out, in, err := weight(o.W, Projection)
	shapes := fmt.Sprintf("%s·%sᵀ", p.values.dims(x), wdims(o.W))
	switch {
	case err != nil:
		p.refuse(o, shapes, "weight: %w", err)
	case !p.values.perToken(x, in):
		p.refuse(o, shapes, "the input must have %d columns and one row per token", in)
	case !slices.Contains(Activations[:], o.Then):
		p.refuse(o, shapes, "unknown %s", o.Then)
	case o.Then.Gates() && out%2 != 0:
		p.refuse(o, shapes, "a gated product must have an even number of columns")
	case o.Bias != nil && !isVector(o.Bias, out):
		p.refuse(o, shapes, "the bias %s must have %d columns", wdims(o.Bias), out)
	case add != None && o.Then != Identity:
		p.refuse(o, shapes, "%s cannot be combined with a residual", o.Then)
	case add != None && !p.values.perToken(add, out):
		p.refuse(o, shapes, "the residual %s must have %d columns", p.values.dims(add), out)
	}
	p.values.read(x, Operand, len(p.ops))
	p.values.read(add, Float32, len(p.ops))
	return p.add(Op{In: x, Add: add, Do: o}, o.Then.Cols(out), false)
}

// Norm appends a Norm of x [T, c] and returns its result [T, c].
func (p *Program) Norm(x Value, o Norm) Value {
	cols := p.Cols(x)
	switch {
	case !p.values.perToken(x, cols):
		p.refuse(o, p.values.dims(x), "the input must have one row per token")
	case !isVector(o.Gain, cols) || !isVector(o.Bias, cols):
		p.refuse(o, p.values.dims(x), "gain %s and bias %s must have %d columns", wdims(o.Gain), wdims(o.Bias), cols)
	case !(o.Eps > 0):
		p.refuse(o, p.values.dims(x), "eps is %v, but must be positive", o.Eps)
	}
	p.values.read(x, Float32, len(p.ops))
	return p.add(Op{In: x, Add: None, Do: o}, cols, false)
}

// Attention appends an Attention. qkv is [T, 3·Heads·d], where d is the number of columns of a head: in each row all
// queries, then all keys, then all values. The result is [T, Heads·d].
func (p *Program) Attention(qkv Value, o Attention) Value {
	width := p.Cols(qkv) / 3
	shapes := fmt.Sprintf("%s, %d heads", p.values.dims(qkv), o.Heads)
	switch {
	case o.Heads < 1 || width == 0 || !p.values.perToken(qkv, 3*width) || width%o.Heads != 0:
		p.refuse(o, shapes, "the number of columns must be a multiple of three times the number of heads")
	case !(o.Scale > 0):
		p.refuse(o, shapes, "scale is %v, but must be positive", o.Scale)
	case o.Slopes != nil && len(o.Slopes) != o.Heads:
		p.refuse(o, shapes, "%d slopes for %d heads", len(o.Slopes), o.Heads)
	case o.Rotary != nil && width != o.Heads*2*len(o.Rotary.InvFreq):
		p.refuse(o, shapes, "%d rotary frequencies for heads of %d columns", len(o.Rotary.InvFreq), width/o.Heads)
	}
	p.values.read(qkv, Operand, len(p.ops))
	return p.add(Op{In: qkv, Add: None, Do: o}, width, false)
}

// Pool appends the mean over a range of each sequence's rows of x [T, c] and returns its result [S, c].
func (p *Program) Pool(x Value, r Range) Value {
	cols := p.Cols(x)
	switch {
	case !p.values.perToken(x, cols):
		p.refuse(r, p.values.dims(x), "the input must have one row per token")
	case r.Skip < 0 || r.Trim < 0:
		p.refuse(r, p.values.dims(x), "Skip and Trim must not be negative")
	}
	p.values.read(x, Float32, len(p.ops))
	return p.add(Op{In: x, Add: None, Do: r}, cols, true)
}

// Output appends an Output: v, in float32, becomes the next result of a run.
func (p *Program) Output(v Value) {
	o := Output(len(p.outputs))
	if !p.values.has(v) {
		p.refuse(o, p.values.dims(v), "unknown value")
		return
	}
	p.values.read(v, Float32, len(p.ops))
	p.ops = append(p.ops, Op{Out: None, In: v, Add: None, Do: o})
	p.outputs = append(p.outputs, v)
}

// Err returns the first mistake made in building the program, as an *OpError, or nil. A missing Output is a mistake,
// too.
func (p *Program) Err() error {
	if p.err == nil && len(p.outputs) == 0 {
		return &OpError{Op: "program", Err: fmt.Errorf("the program has no output")}
	}
	return p.err
}

// Ops returns the operations in order.
func (p *Program) Ops() []Op { return p.ops }

// Outputs returns the values that are the results of a run.
func (p *Program) Outputs() []Value { return p.outputs }

// Cols returns the number of columns of v, or 0 for None.
func (p *Program) Cols(v Value) int {
	if !p.values.has(v) {
		return 0
	}
	return p.values[v].cols
}

// PerSequence reports whether v has one row per sequence instead of one per token.
func (p *Program) PerSequence(v Value) bool { return p.values[v].perSequence }

// Last reports whether o is the last operation that reads its input, so that a backend may overwrite the input while o
// runs. It returns false for an Embed and for an Output.
func (p *Program) Last(o Op) bool {
	return o.Out != None && o.In != None && p.ops[p.values[o.In].lastUse].Out == o.Out
}

// Rows returns the number of rows of v for batch b: the number of tokens or of sequences.
func (p *Program) Rows(v Value, b Batch) int {
	if p.PerSequence(v) {
		return b.Sequences()
	}
	return len(b.IDs)
}

// add appends an operation and returns its result. After a mistake it appends nothing and returns None.
func (p *Program) add(o Op, cols int, perSequence bool) Value {
	if p.err != nil {
		return None
	}
	at := len(p.ops)
	o.Out = Value(len(p.values))
	p.values = append(p.values, value{cols: cols, perSequence: perSequence, definedAt: at, lastUse: at})
	p.ops = append(p.ops, o)
	return o.Out
}

func (p *Program) refuse(o Operation, shapes, format string, args ...any) {
	if p.err == nil {
		p.err = &OpError{Op: o.name(), Shapes: shapes, Err: fmt.Errorf(format, args...)}
	}
}

func (vs values) has(v Value) bool { return v >= 0 && int(v) < len(vs) }

// read records that an operation reads v. The parameter as is the type in which it reads v, and at is the index of the
// operation.
func (vs values) read(v Value, as Precision, at int) {
	if vs.has(v) {
		vs[v].reads |= as
		vs[v].lastUse = at
	}
}

// perToken reports whether v has the given number of columns and one row per token.
func (vs values) perToken(v Value, cols int) bool {
	return vs.has(v) && !vs[v].perSequence && vs[v].cols == cols
}

// dims returns the shape of v for an error message.
func (vs values) dims(v Value) string {
	switch {
	case !vs.has(v):
		return "[]"
	case vs[v].perSequence:
		return fmt.Sprintf("[S %d]", vs[v].cols)
	}
	return fmt.Sprintf("[T %d]", vs[v].cols)
}

func weight(w Weight, role Role) (rows, cols int, err error) {
	if w == nil {
		return 0, 0, fmt.Errorf("missing")
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

// Shapes returns the shapes of an operation for OpError.Shapes.
func (p *Program) Shapes(o Op) string {
	switch do := o.Do.(type) {
	case Linear:
		return fmt.Sprintf("%s·%sᵀ", p.values.dims(o.In), wdims(do.W))
	case Embed:
		return wdims(do.Table)
	}
	return p.values.dims(o.In)
}

func wdims(w Weight) string {
	if w == nil {
		return "[]"
	}
	rows, cols := w.Dims()
	return fmt.Sprintf("[%d %d]", rows, cols)
}
