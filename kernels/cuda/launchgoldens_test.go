package cuda

import (
	"testing"

	"seqembed/kernels"
	"seqembed/transformer/goldentest"
)

// TestGoldensOfTheLaunches compares whole models in every operand type with
// what their own PyTorch code gave, on the fake device, whose plain loops take
// only the short records. The bars are those of a device.
func TestGoldensOfTheLaunches(t *testing.T) {
	for _, g := range goldentest.Goldens() {
		longest := 66
		if g.Model == "dnabert-s-2l" {
			longest = 24
			if raceDetector {
				continue // takes a minute; ESM-2 crosses the same goroutines
			}
		}
		for _, c := range []struct {
			dtype kernels.DType
			bars  goldentest.Bars
		}{{kernels.FP32, g.FP32}, {kernels.BF16, g.BF16}, {kernels.FP16, g.FP16}} {
			for _, products := range []string{"own products", "cuBLAS"} {
				t.Run(g.Model+"/"+c.dtype.String()+"/"+products, func(t *testing.T) {
					f := newFake(t)
					find := noCublas
					if products == "cuBLAS" {
						find = newFakeCublas(f).find
					}
					b := openFake(t, f, c.dtype, find)
					g.Compare(t, b, c.bars, longest)
					if err := b.Close(); err != nil {
						t.Error(err)
					}
					f.settled()
				})
			}
		}
	}
}
