package kernels

import "fmt"

// Value is an activation of a program: the result of one of its operations. It is never changed: an operation may use
// the memory of a value that nothing reads afterwards, which is for the plan to find out.
type Value int32

// None stands for no value.
const None Value = -1

// Program is a forward pass: a straight line of operations. Its first mistake sticks, so that building one needs no
// error handling; Err and Compile give it. It must not change once it has been compiled.
type Program struct {
	ops        []Op
	values     values
	outputs    []Value
	vocabulary int // rows of the smallest table
	err        error
}

// values are indexed by Value.
type values []value

type value struct {
	cols        int
	perSequence bool
	reads       Precision
	born, dies  int // the operations that write and last read it
}

// Op is one operation of a program.
type Op struct {
	Out     Value // None for an output
	In, Add Value // None where there is none
	Do      Operation
}

// Operation is an Embed, Linear, Norm, Attention, Range (of a pool) or Output.
type Operation interface {
	name() string
}

// Embed looks up one row of a table for each token:
//
//	out[t] = Table[id_t] · scale_s + Type
//
// scale_s is Scale, unless token dropout is on (Mask >= 0): then the rows of Mask tokens are zero before Type is added,
// and scale_s = Scale / (1 − share of Mask tokens in the sequence), as ESM-2 does at inference (EsmEmbeddings in
// transformers' modeling_esm.py).
type Embed struct {
	Table Weight  // Lookup [vocabulary, c]
	Type  Weight  // Vector [1, c], or nil
	Scale float32 // 1 leaves the rows as they are
	Mask  int32   // NoMask, or the id of the mask token
}

// NoMask turns token dropout off in an Embed.
const NoMask int32 = -1

// Linear is a matrix product with what follows it:
//
//	out = Then(x · Wᵀ + Bias) + add
//
// Then and add exclude each other: no model has both, and no backend has to say in which order it would compute them.
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
	// GELU is x · Φ(x), Φ by erf.
	GELU
	// GEGLU gates the second half of the columns by the first (Shazeer 2020): for a product z of 2c columns it is
	// GELU(z[:, :c]) ⊙ z[:, c:].
	GEGLU
)

// String gives the name in lower case, as a Profile has it.
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

// Cols is the number of columns that are left of a product of n columns.
func (a Activation) Cols(n int) int {
	if a == GEGLU {
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

// Attention is softmax attention inside each sequence, without a causal mask:
//
//	s_ij = Scale · q_i·k_j − Slopes[head] · |i − j|
//	out_i = Σ_j softmax_j(s_ij) · v_j
//
// Slopes is the symmetric form of ALiBi (Press et al. 2022). With a Rotary the queries and keys of the formula are the
// rotated ones.
type Attention struct {
	Heads  int
	Scale  float32
	Slopes []float32 // [Heads], or nil for none
	Rotary *Rotary   // or nil
}

// Rotary scales the queries and rotates queries and keys by their position, counted from 0 in each sequence (Su et al.
// 2021, in the half-split form of ESM-2): with θ_j = position · InvFreq[j], and d the head size, for the query scaled
// by QScale and for the key
//
//	z_j     ← z_j · cos θ_j − z_{j+d/2} · sin θ_j
//	z_{j+d/2} ← z_{j+d/2} · cos θ_j + z_j · sin θ_j
//
// The angle is a product in float32, as in the reference.
type Rotary struct {
	QScale  float32
	InvFreq []float32 // [d/2]
}

// Range is the rows of each sequence that a pool averages: those from Skip on, without the last Trim, and no more than
// Limit of them when Limit is positive. An empty range is an error of the batch.
type Range struct {
	Skip, Trim, Limit int
}

// Of gives the half-open range in a sequence of n tokens, counted from the sequence's start.
func (r Range) Of(n int) (from, to int) {
	from, to = r.Skip, n-r.Trim
	if r.Limit > 0 {
		to = min(to, from+r.Limit)
	}
	return from, max(from, to)
}

// Output is the number of a result.
type Output int

func (Embed) name() string     { return "embed" }
func (Linear) name() string    { return "linear" }
func (Norm) name() string      { return "norm" }
func (Attention) name() string { return "attention" }
func (Range) name() string     { return "pool" }
func (Output) name() string    { return "output" }

// Embed gives [T, c].
func (p *Program) Embed(o Embed) Value {
	rows, cols, err := weight(o.Table, Lookup)
	switch {
	case err != nil:
		p.refuse(o, wdims(o.Table), "table: %w", err)
	case o.Type != nil && !isVector(o.Type, cols):
		p.refuse(o, wdims(o.Table), "the type row %s needs %d columns", wdims(o.Type), cols)
	}
	if p.vocabulary == 0 || rows < p.vocabulary {
		p.vocabulary = rows
	}
	return p.add(Op{In: None, Add: None, Do: o}, cols, false)
}

// Linear gives [T, out], or [T, out/2] for a GEGLU, of x [T, in] and a residual [T, out], or None.
func (p *Program) Linear(x Value, o Linear, add Value) Value {
	out, in, err := weight(o.W, Projection)
	shapes := fmt.Sprintf("%s·%sᵀ", p.values.dims(x), wdims(o.W))
	switch {
	case err != nil:
		p.refuse(o, shapes, "weight: %w", err)
	case !p.values.perToken(x, in):
		p.refuse(o, shapes, "the input needs %d columns and one row a token", in)
	case o.Then > GEGLU:
		p.refuse(o, shapes, "there is no %s", o.Then)
	case o.Then == GEGLU && out%2 != 0:
		p.refuse(o, shapes, "a gate needs an even number of columns")
	case o.Bias != nil && !isVector(o.Bias, out):
		p.refuse(o, shapes, "the bias %s needs %d columns", wdims(o.Bias), out)
	case add != None && o.Then != Identity:
		p.refuse(o, shapes, "%s and a residual exclude each other", o.Then)
	case add != None && !p.values.perToken(add, out):
		p.refuse(o, shapes, "the residual %s needs %d columns", p.values.dims(add), out)
	}
	p.values.read(x, Operand, len(p.ops))
	p.values.read(add, Float32, len(p.ops))
	return p.add(Op{In: x, Add: add, Do: o}, o.Then.Cols(out), false)
}

// Norm gives [T, c] of x [T, c].
func (p *Program) Norm(x Value, o Norm) Value {
	cols := p.Cols(x)
	switch {
	case !p.values.perToken(x, cols):
		p.refuse(o, p.values.dims(x), "the input needs one row a token")
	case !isVector(o.Gain, cols) || !isVector(o.Bias, cols):
		p.refuse(o, p.values.dims(x), "gain %s and bias %s need %d columns", wdims(o.Gain), wdims(o.Bias), cols)
	case !(o.Eps > 0):
		p.refuse(o, p.values.dims(x), "eps is %v and has to be positive", o.Eps)
	}
	p.values.read(x, Float32, len(p.ops))
	return p.add(Op{In: x, Add: None, Do: o}, cols, false)
}

// Attention gives [T, Heads·d] of qkv [T, 3·Heads·d]: all queries, all keys, all values.
func (p *Program) Attention(qkv Value, o Attention) Value {
	width := p.Cols(qkv) / 3
	shapes := fmt.Sprintf("%s, %d heads", p.values.dims(qkv), o.Heads)
	switch {
	case o.Heads < 1 || width == 0 || !p.values.perToken(qkv, 3*width) || width%o.Heads != 0:
		p.refuse(o, shapes, "the input needs three times as many columns as a multiple of the heads")
	case !(o.Scale > 0):
		p.refuse(o, shapes, "scale is %v and has to be positive", o.Scale)
	case o.Slopes != nil && len(o.Slopes) != o.Heads:
		p.refuse(o, shapes, "%d slopes for %d heads", len(o.Slopes), o.Heads)
	case o.Rotary != nil && width != o.Heads*2*len(o.Rotary.InvFreq):
		p.refuse(o, shapes, "%d rotary frequencies for heads of %d columns", len(o.Rotary.InvFreq), width/o.Heads)
	}
	p.values.read(qkv, Operand, len(p.ops))
	return p.add(Op{In: qkv, Add: None, Do: o}, width, false)
}

// Pool gives [S, c], the mean over a range of each sequence's rows of x [T, c].
func (p *Program) Pool(x Value, r Range) Value {
	cols := p.Cols(x)
	switch {
	case !p.values.perToken(x, cols):
		p.refuse(r, p.values.dims(x), "the input needs one row a token")
	case r.Skip < 0 || r.Trim < 0:
		p.refuse(r, p.values.dims(x), "a range cannot begin before its sequence or end after it")
	}
	p.values.read(x, Float32, len(p.ops))
	return p.add(Op{In: x, Add: None, Do: r}, cols, true)
}

// Output makes v the next result of a run, in float32.
func (p *Program) Output(v Value) {
	o := Output(len(p.outputs))
	if !p.values.has(v) {
		p.refuse(o, p.values.dims(v), "there is no such value")
		return
	}
	p.values.read(v, Float32, len(p.ops))
	p.ops = append(p.ops, Op{Out: None, In: v, Add: None, Do: o})
	p.outputs = append(p.outputs, v)
}

// Err is the first mistake, as an *OpError, or nil.
func (p *Program) Err() error {
	if p.err == nil && len(p.outputs) == 0 {
		return &OpError{Op: "program", Err: fmt.Errorf("it has no output")}
	}
	return p.err
}

// Ops lists the operations in their order.
func (p *Program) Ops() []Op { return p.ops }

// Outputs lists the results of a run.
func (p *Program) Outputs() []Value { return p.outputs }

// Cols is the columns of a value, 0 for None.
func (p *Program) Cols(v Value) int {
	if !p.values.has(v) {
		return 0
	}
	return p.values[v].cols
}

// PerSequence tells a value of S rows from one of T rows.
func (p *Program) PerSequence(v Value) bool { return p.values[v].perSequence }

// Last reports whether o is the last operation that reads its input: a backend may overwrite that, then, until o has run.
func (p *Program) Last(o Op) bool {
	return o.Out != None && o.In != None && p.ops[p.values[o.In].dies].Out == o.Out
}

// Rows is the number of rows of a value for a batch: T, or S.
func (p *Program) Rows(v Value, b Batch) int {
	if p.PerSequence(v) {
		return b.Sequences()
	}
	return len(b.IDs)
}

// add appends an operation and gives its value.
func (p *Program) add(o Op, cols int, perSequence bool) Value {
	if p.err != nil {
		return None
	}
	at := len(p.ops)
	o.Out = Value(len(p.values))
	p.values = append(p.values, value{cols: cols, perSequence: perSequence, born: at, dies: at})
	p.ops = append(p.ops, o)
	return o.Out
}

func (p *Program) refuse(o Operation, shapes, format string, args ...any) {
	if p.err == nil {
		p.err = &OpError{Op: o.name(), Shapes: shapes, Err: fmt.Errorf(format, args...)}
	}
}

func (vs values) has(v Value) bool { return v >= 0 && int(v) < len(vs) }

// read notes that operation at reads a value.
func (vs values) read(v Value, as Precision, at int) {
	if vs.has(v) {
		vs[v].reads |= as
		vs[v].dies = at
	}
}

// perToken tells a value of that many columns and one row a token from others.
func (vs values) perToken(v Value, cols int) bool {
	return vs.has(v) && !vs[v].perSequence && vs[v].cols == cols
}

// dims names the shape of a value in an error.
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

// Shapes names the shapes of an operation in an error.
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
