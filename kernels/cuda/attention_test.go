package cuda

import (
	"math"
	"slices"
	"testing"

	"seqembed/kernels"
)

// rotated returns a copy of packed rows [T, 3·heads·d] in which the queries are scaled, and queries and keys are
// rotated. It computes as src/rotary.cuh does, and rounds the results to type t.
func rotated(t kernels.DType, rows []float32, batch kernels.Batch, heads int, o *kernels.Rotary) []float32 {
	half := len(o.InvFreq)
	out := slices.Clone(rows)
	for s := range batch.Sequences() {
		for i := range batch.Len(s) {
			row := out[(int(batch.CuSeqlens[s])+i)*6*heads*half:]
			for h := range 2 * heads {
				factor := float32(1)
				if h < heads {
					factor = o.QScale
				}
				for j, f := range o.InvFreq {
					sin64, cos64 := math.Sincos(float64(float32(i) * f))
					sin, cos := float64(float32(sin64)), float64(float32(cos64))
					low, high := &row[2*h*half+j], &row[2*h*half+half+j]
					a, b := float64(*low*factor), float64(*high*factor)
					// A product of two float32 values is exact in float64. So a multiply-add in float64, rounded to
					// float32, gives the bits of the kernel's multiply-add except in extremely rare ties.
					*low = float32(math.FMA(a, cos, -float64(float32(b*sin))))
					*high = float32(math.FMA(b, cos, float64(float32(a*sin))))
				}
			}
		}
	}
	return rounded(t, out)
}

// rotatedAttention computes the same attention in two ways. together is the result of a program with a Rotary. apart is
// the result of a program without a Rotary, whose queries and keys the host has rotated.
func rotatedAttention(t *testing.T, b *Backend, d int, batch kernels.Batch) (together, apart []float32) {
	t.Helper()
	const heads = 3
	rotary := &kernels.Rotary{QScale: float32(1 / math.Sqrt(float64(d))), InvFreq: frequencies(d)}
	plain := rounded(b.dtype, randomTensor(uint64(d), 1, len(batch.IDs)*3*heads*d).Values)
	run := func(rows []float32, rotary *kernels.Rotary) []float32 {
		n := newNet(t, b)
		n.Output(n.Attention(n.input(3*heads*d, rows), kernels.Attention{Heads: heads, Scale: 1, Rotary: rotary}))
		return n.run(b, batch, limitsOf(batch))[0]
	}
	return run(plain, rotary), run(rotated(b.dtype, plain, batch, heads, rotary), nil)
}

// rounded returns the values rounded to type t.
func rounded(t kernels.DType, values []float32) []float32 {
	raw := make([]byte, len(values)*sizeOf(t))
	encode(t, raw, values)
	decode(t, values, raw)
	return values
}

// TestGPURotationInAttention checks that an attention with a Rotary gives the same bits as an attention without a
// Rotary on rotated rows. So the attention with a Rotary must round the rotated queries and keys to the operands' type
// before it multiplies them.
func TestGPURotationInAttention(t *testing.T) {
	batch := rowsOf(65, 1, 130, 300, 1025)
	if testing.Short() {
		batch = rowsOf(65, 1, 130)
	}
	for _, dtype := range []kernels.DType{kernels.FP32, kernels.BF16, kernels.FP16} {
		b := requireGPU(t, dtype)
		for _, d := range attentionHeads {
			if together, apart := rotatedAttention(t, b, d, batch); !slices.Equal(together, apart) {
				t.Errorf("%s, heads of %d columns: the results differ by %g", dtype, d, distance(together, apart))
			}
		}
		b.Close()
	}
}
