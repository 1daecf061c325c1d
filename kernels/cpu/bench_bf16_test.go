package cpu

import (
	"fmt"
	"math"
	"testing"
	"time"

	"seqembed/kernels"
)

// BenchmarkBF16Weights reports the speed of a matrix product with bfloat16 weights relative to float32 weights. It
// alternates between them and compares the best runs.
func BenchmarkBF16Weights(b *testing.B) {
	eachSetup(b, func(b *testing.B, s setup) {
		if s.format == bf16 {
			return
		}
		for _, shape := range [][2]int{{2304, 768}, {3840, 1280}} {
			for _, m := range []int{16, 96, 512, 2048} {
				n, k := shape[0], shape[1]
				b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
					product := func(f format) func() {
						s.format = f
						return benchOp(b, s, 1, m, k, func(model kernels.Model, p *kernels.Program, x kernels.Value) kernels.Value {
							return p.Linear(x, kernels.Linear{W: benchWeight(b, model, kernels.Projection, n, k)}, kernels.None)
						})
					}
					runs := []func(){product(float32s), product(bf16Weights)}
					best := []time.Duration{math.MaxInt64, math.MaxInt64}
					for b.Loop() {
						for i, run := range runs {
							start := time.Now()
							run()
							best[i] = min(best[i], time.Since(start))
						}
					}
					b.ReportMetric(float64(best[0])/float64(best[1]), "fp32/bf16")
				})
			}
		}
	})
}
