package cpu

import (
	"fmt"
	"math"
	"testing"
	"time"

	"seqembed/kernels"
)

// BenchmarkBF16Weights reports how much faster a product is with weights in
// bfloat16 than in float32: best run against best run, taken in turn.
func BenchmarkBF16Weights(b *testing.B) {
	eachVariant(b, func(b *testing.B, v *variant, threads int) {
		for _, shape := range [][2]int{{2304, 768}, {3840, 1280}} {
			for _, m := range []int{16, 96, 512, 2048} {
				n, k := shape[0], shape[1]
				b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
					product := func(bf16 bool) func() {
						backend, s := onBenchWith(b, v, Options{Threads: threads, BF16Weights: bf16}, 1, m)
						w, err := backend.Load(kernels.Projection, randomSource{[]int{n, k}})
						if err != nil {
							b.Fatal(err)
						}
						in, out := s.Tokens(k, kernels.Operand), s.Tokens(n, kernels.Operand)
						fill(of(in).at, 1)
						return func() {
							s.Linear(kernels.Linear{Out: out, In: in, W: w})
							if err := s.Wait(); err != nil {
								b.Fatal(err)
							}
						}
					}
					runs := []func(){product(false), product(true)}
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
