package cuda

import (
	"testing"

	"seqembed/kernels"
	"seqembed/transformer/goldentest"
)

// TestGoldensOfTheLaunches compares whole models in every operand type with the results of their original PyTorch code.
// It runs them on the fake device, which needs no C++ compiler but is so slow that only the short records are compared.
// The error limits are those of a real device (see goldentest.Bars).
func TestGoldensOfTheLaunches(t *testing.T) {
	for _, g := range goldentest.Goldens() {
		longest := 66
		if g.Model == "dnabert-s-2l" {
			longest = 24
			if raceDetector {
				continue // this model takes a minute under the race detector, and ESM-2 uses the same goroutines
			}
		}
		for dtype, bars := range map[kernels.DType]goldentest.Bars{
			kernels.FP32: g.FP32, kernels.BF16: g.BF16, kernels.FP16: g.FP16} {
			t.Run(g.Model+"/"+dtype.String(), func(t *testing.T) {
				f := newFake(t)
				b := openFake(t, f, dtype, noCublas)
				g.Compare(t, b, bars, longest)
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				f.checkFreed()
			})
		}
	}
}
