package cpu

import (
	"fmt"
	"math"
	"testing"
	"time"

	"seqembed/kernels"
)

func BenchmarkAttention(b *testing.B) {
	const heads, d = 12, 64
	slopes := make([]float32, heads)
	for h := range slopes {
		slopes[h] = float32(math.Exp2(-float64(h+1) / 2))
	}
	eachSetup(b, func(b *testing.B, s setup) {
		for _, length := range []int{20, 128, 512, 1024} {
			b.Run(fmt.Sprint(length), func(b *testing.B) {
				sequences := 2048 / length
				o := kernels.Attention{Heads: heads, Scale: 0.125, Slopes: slopes}
				run := benchOp(b, s, sequences, length, 3*heads*d,
					func(_ kernels.Model, p *kernels.Program, x kernels.Value) kernels.Value { return p.Attention(x, o) })
				reportRate(b, s, 4*float64(sequences)*heads*d*float64(length)*float64(length), run)
			})
		}
	})
}

// BenchmarkRows reports the time in ns per value of operations that compute row by row. It uses one core and one row,
// of 768 values or of 512 scores, in the first-level cache.
func BenchmarkRows(b *testing.B) {
	for _, v := range variants() {
		x, y, z := aligned(768), aligned(768), aligned(768)
		fill(x, 1)
		fill(y, 2)
		var queries softmaxRows
		for _, op := range []struct {
			name   string
			values int
			run    func()
		}{
			{"gelu", 768, func() { copy(z, x); v.gelu(z) }},
			{"gate by GELU", 768, func() { v.gateGELU(z, x, y) }},
			{"softmax", 512, func() {
				copy(z, x[:512])
				v.softmax(z, 512, 512, 1, 0.5, 9, &queries, 1)
			}},
			{"norm", 768, func() { copy(z, x); v.normalize(z, x, y, 1e-5) }},
			{"rotary", 768, func() { copy(z, x); v.rotate(z, x[:32], y[:32], 0.125) }},
		} {
			b.Run(v.name+"/"+op.name, func(b *testing.B) {
				const rows = 100
				best := time.Duration(math.MaxInt64)
				for b.Loop() {
					start := time.Now()
					for range rows {
						op.run()
					}
					best = min(best, time.Since(start))
				}
				b.ReportMetric(float64(best.Nanoseconds())/rows/float64(op.values), "ns/value")
			})
		}
	}
}
