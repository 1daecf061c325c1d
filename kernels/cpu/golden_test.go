package cpu

import (
	"testing"

	"seqembed/transformer/goldentest"
)

// TestGoldens compares whole models with the output of their original PyTorch code, in every variant of this machine,
// with weights in float32 and in bfloat16, and with both operands in bfloat16.
func TestGoldens(t *testing.T) {
	for _, v := range variants() {
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

// compareGolden runs a golden as a subtest and closes b.
func compareGolden(t *testing.T, b *Backend, g goldentest.Golden, bars goldentest.Bars, longest int) {
	t.Run(b.Name()+"/"+g.Model, func(t *testing.T) { g.Compare(t, b, bars, longest) })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
