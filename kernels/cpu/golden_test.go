package cpu

import (
	"testing"

	"seqembed/transformer/goldentest"
)

// TestGoldens checks that whole models agree with the results of their original PyTorch code, within error limits. It
// uses every implementation of the inner loops that this machine supports, with weights in float32 and in bfloat16, and
// with both operands in bfloat16 if the machine has instructions that multiply bfloat16. In short mode, which is used
// under emulation, it uses only the fastest implementation, and dnabert-s-2l only in float32.
func TestGoldens(t *testing.T) {
	t.Parallel()
	for _, v := range variants() {
		if testing.Short() && v.name != best().name {
			continue
		}
		for _, g := range goldentest.Goldens() {
			longest := 0
			if g.Model == "dnabert-s-2l" {
				// The portable variant takes 5 ms per token, and any variant under emulation.
				switch {
				case testing.Short():
					longest = 20
				case v.name == "portable":
					longest = 40
				}
			}
			compareGolden(t, newBackend(2, v, float32s), g, g.FP32, longest)
			if testing.Short() && longest > 0 {
				continue
			}
			compareGolden(t, newBackend(2, v, bf16Weights), g, g.BF16Weights, longest)
			if v.pairs.fast {
				compareGolden(t, newBackend(2, v, bf16), g, g.BF16, longest)
			}
		}
	}
}

// instructionForms returns two variants in plain Go. The first multiplies bfloat16 with the rounding of the instruction
// VDPBF16PS of AVX512_BF16, the second with the rounding of BFMMLA of arm64.
func instructionForms() []*variant {
	vdpbf16ps, bfmmla := portable(), portable()
	vdpbf16ps.name, bfmmla.name = "vdpbf16ps in Go", "bfmmla in Go"
	bfmmla.pairs = bfmmlaForm()
	return []*variant{vdpbf16ps, bfmmla}
}

// TestGoldensOfInstructions checks on every machine that a model agrees with the results of its original PyTorch code
// if products round like the bfloat16 instructions VDPBF16PS and BFMMLA. The products are computed in plain Go, which
// is slow, so the test compares only sequences of at most 40 tokens.
func TestGoldensOfInstructions(t *testing.T) {
	if testing.Short() {
		t.Skip("the portable forms are slow")
	}
	g := goldentest.Goldens()[0]
	for _, v := range instructionForms() {
		compareGolden(t, newBackend(2, v, bf16), g, g.BF16, 40)
	}
}

// TestEmbeddingsDoNotDependOnBatch checks that the embedding of a sequence has the same bits in a batch of its own and
// in a batch with other sequences, and with one thread and with two. It uses one model, every implementation of the
// inner loops that this machine supports, and each type of the operands.
func TestEmbeddingsDoNotDependOnBatch(t *testing.T) {
	t.Parallel()
	g := goldentest.Goldens()[0]
	check := func(v *variant, f format, longest int) {
		b := newBackend(1, v, f)
		defer b.Close()
		two := newBackend(2, v, f)
		defer two.Close()
		want := g.Embeddings(t, b, longest, true)
		sameBits(t, b.Name()+", together", g.Embeddings(t, b, longest, false), want)
		sameBits(t, b.Name()+", together, two threads", g.Embeddings(t, two, longest, false), want)
	}
	for _, v := range variants() {
		longest := 0
		if v.name == "portable" || testing.Short() {
			longest = 40
		}
		check(v, float32s, longest)
		check(v, bf16Weights, longest)
		if v.pairs.fast {
			check(v, bf16, longest)
		}
	}
	if !testing.Short() {
		for _, v := range instructionForms() {
			check(v, bf16, 40)
		}
	}
}

// compareGolden compares the model of g on the backend b with the results of its original code, within the limits in
// bars, as a subtest. It then closes b.
func compareGolden(t *testing.T, b *Backend, g goldentest.Golden, bars goldentest.Bars, longest int) {
	t.Run(b.Name()+"/"+g.Model, func(t *testing.T) { g.Compare(t, b, bars, longest) })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
