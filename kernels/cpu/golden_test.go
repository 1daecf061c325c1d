package cpu

import (
	"testing"

	"seqembed/transformer/goldentest"
)

// TestGoldens compares whole models with the output of their original PyTorch code, in every variant of this machine,
// with weights in float32 and in bfloat16, and with both operands in bfloat16. In short mode it runs the variant with
// which this machine computes.
func TestGoldens(t *testing.T) {
	for _, v := range variants() {
		if testing.Short() && v.name != best().name {
			continue
		}
		for _, g := range goldentest.Goldens() {
			longest := 0
			if g.Model == "dnabert-s-2l" {
				switch { // the portable variant takes 5 ms per token, and every variant as much under emulation
				case testing.Short():
					longest = 20
				case v.name == "portable":
					longest = 40
				}
			}
			compareGolden(t, newBackend(2, v, float32s), g, g.FP32, longest)
			compareGolden(t, newBackend(2, v, bf16Weights), g, g.BF16Weights, longest)
			if v.pairs.fast {
				compareGolden(t, newBackend(2, v, bf16), g, g.BF16, longest)
			}
		}
	}
}

// instructionForms returns a portable variant for each set of instructions that multiply pairs of bfloat16. It computes
// with their arithmetic.
func instructionForms() []*variant {
	vdpbf16ps, bfmmla := portable(), portable()
	vdpbf16ps.name, bfmmla.name = "vdpbf16ps in Go", "bfmmla in Go"
	bfmmla.pairs = bfmmlaForm()
	return []*variant{vdpbf16ps, bfmmla}
}

// TestGoldensOfInstructions compares whole models in the arithmetic of each instruction for bfloat16 with the output of
// the original code, on every machine. The portable forms are slow, so that only short records are compared.
func TestGoldensOfInstructions(t *testing.T) {
	if testing.Short() {
		t.Skip("the portable forms are slow")
	}
	g := goldentest.Goldens()[0]
	for _, v := range instructionForms() {
		compareGolden(t, newBackend(2, v, bf16), g, g.BF16, 40)
	}
}

// TestEmbeddingsDoNotDependOnBatch runs the records of a golden alone, with one thread, and together, with one and with
// two. All bits must be the same, in every variant and in each type of the operands.
func TestEmbeddingsDoNotDependOnBatch(t *testing.T) {
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

// compareGolden runs a golden as a subtest and closes b.
func compareGolden(t *testing.T, b *Backend, g goldentest.Golden, bars goldentest.Bars, longest int) {
	t.Run(b.Name()+"/"+g.Model, func(t *testing.T) { g.Compare(t, b, bars, longest) })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
