package kernels

import "fmt"

// Embed looks up one row of a table for each token:
//
//	Out[t] = Table[id_t] · scale_s + Type
//
// scale_s is Scale, unless token dropout is on (Mask >= 0): then the rows of
// Mask tokens are zero before Type is added, and
// scale_s = Scale / (1 − share of Mask tokens in the sequence), as ESM-2 does
// at inference (EsmEmbeddings in transformers' modeling_esm.py).
type Embed struct {
	Out   Buffer  // [T, c]
	Table Weight  // Lookup [vocabulary, c]
	Type  Weight  // Vector [1, c], or nil
	Scale float32 // 1 leaves the rows as they are
	Mask  int32   // NoMask, or the id of the mask token
}

// NoMask turns token dropout off in an Embed.
const NoMask int32 = -1

// Linear is a matrix product with what follows it:
//
//	Out = Then(In · Wᵀ + Bias) + Add
//
// Then and Add exclude each other: no model has both, and no backend has to say in which order it would compute them.
// Out and In may not share memory.
type Linear struct {
	Out  Buffer // [T, out], [T, out/2] for a GEGLU
	In   Buffer // [T, in], an Operand
	W    Weight // Projection [out, in]
	Bias Weight // Vector [1, out], or nil
	Then Activation
	Add  Buffer // residual [T, out], may be Out itself; or nil
}

// Activation is the function that a Linear applies to its product.
type Activation uint8

const (
	// Identity leaves the product as it is.
	Identity Activation = iota
	// GELU is x · Φ(x), Φ by erf.
	GELU
	// GEGLU gates the second half of the columns by the first (Shazeer 2020):
	// for a product z of 2c columns it is GELU(z[:, :c]) ⊙ z[:, c:].
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
//	z = In + Add,  Out = (z − mean(z)) / sqrt(var(z) + Eps) · Gain + Bias
type Norm struct {
	Out  Buffer // [T, c], may be In
	In   Buffer // [T, c], a Residual
	Add  Buffer // [T, c], a Residual, or nil
	Gain Weight // Vector [1, c]
	Bias Weight // Vector [1, c]
	Eps  float32
}

// Attention is softmax attention inside each sequence, without a causal mask:
//
//	s_ij = Scale · q_i·k_j − Slopes[head] · |i − j|
//	Out_i = Σ_j softmax_j(s_ij) · v_j
//
// Slopes is the symmetric form of ALiBi (Press et al. 2022). With a Rotary the
// queries and keys of the formula are the rotated ones; QKV keeps its values.
type Attention struct {
	Out    Buffer // [T, Heads·d]
	QKV    Buffer // [T, 3·Heads·d]: all queries, all keys, all values
	Heads  int
	Scale  float32
	Slopes []float32 // [Heads], or nil for none
	Rotary *Rotary   // or nil
}

// Rotary scales the queries and rotates queries and keys by their position,
// counted from 0 in each sequence (Su et al. 2021, in the half-split form of
// ESM-2): with θ_j = position · InvFreq[j], and d the head size, for the query
// scaled by QScale and for the key
//
//	z_j     ← z_j · cos θ_j − z_{j+d/2} · sin θ_j
//	z_{j+d/2} ← z_{j+d/2} · cos θ_j + z_j · sin θ_j
//
// The angle is a product in float32, as in the reference.
type Rotary struct {
	QScale  float32
	InvFreq []float32 // [d/2]
}

// Pool averages a range of each sequence's rows: those from Skip on, without
// the last Trim, and no more than Limit of them when Limit is positive. An
// empty range is an error.
type Pool struct {
	Out   Buffer // per sequence [S, c]
	In    Buffer // [T, c], a Residual
	Skip  int
	Trim  int
	Limit int
}

// Range gives the half-open range of rows that Pool averages in a sequence of
// n tokens, counted from the sequence's start.
func (o Pool) Range(n int) (from, to int) {
	from, to = o.Skip, n-o.Trim
	if o.Limit > 0 {
		to = min(to, from+o.Limit)
	}
	return from, max(from, to)
}
