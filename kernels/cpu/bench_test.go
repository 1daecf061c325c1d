package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/cpu/peak"
)

// shapes are the (N, K) of the products of DNABERT-S and of ESM-2 8M and
// 650M.
var shapes = [][2]int{{2304, 768}, {6144, 768}, {768, 3072}, {960, 320}, {1280, 320}, {320, 1280}, {3840, 1280}, {5120, 1280}}

// randomSource is a tensor of small random values.
type randomSource struct{ shape []int }

func (r randomSource) Shape() []int { return r.shape }

func (r randomSource) ReadRows(dst []float32, first int) error {
	fill(dst, uint64(first))
	return nil
}

func fill(dst []float32, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for i := range dst {
		dst[i] = float32(rng.NormFloat64())
	}
}

// onBench opens a stream of that variant for a batch of sequences of one
// length each.
func onBench(b *testing.B, v *variant, threads, sequences, length int) (*Backend, kernels.Stream) {
	return onBenchWith(b, v, Options{Threads: threads}, sequences, length)
}

func onBenchWith(b *testing.B, v *variant, o Options, sequences, length int) (*Backend, kernels.Stream) {
	backend := newBackend(o, v)
	tokens := sequences * length
	s, err := backend.NewStream(kernels.Limits{Tokens: tokens, Sequences: sequences})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close(); backend.Close() })
	batch := kernels.Batch{}
	for range sequences {
		batch.Append(make([]int32, length))
	}
	s.Begin(batch)
	return backend, s
}

// share reports the rate of an operation of that many FLOPs in its best run,
// since others use the machine too, and its share of the measured peak of as
// many cores.
func share(b *testing.B, v *variant, threads int, flops float64, run func()) {
	run() // touches every page
	best := time.Duration(math.MaxInt64)
	top := peak.Rate(v.name)
	for b.Loop() {
		start := time.Now()
		run()
		best = min(best, time.Since(start))
	}
	rate := flops / float64(best.Nanoseconds())
	b.ReportMetric(rate, "GFLOP/s")
	if top = max(top, peak.Rate(v.name)); top > 0 {
		b.ReportMetric(100*rate/top/float64(threads), "%peak")
	}
}

// eachVariant runs a benchmark with every set of instructions and one thread
// and two.
func eachVariant(b *testing.B, run func(b *testing.B, v *variant, threads int)) {
	for _, v := range variants() {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", v.name, threads), func(b *testing.B) { run(b, v, threads) })
		}
	}
}

func BenchmarkLinear(b *testing.B) {
	eachVariant(b, func(b *testing.B, v *variant, threads int) {
		for _, shape := range shapes {
			for _, m := range []int{64, 512, 2048} {
				n, k := shape[0], shape[1]
				b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
					backend, s := onBench(b, v, threads, 1, m)
					w, err := backend.Load(kernels.Projection, randomSource{[]int{n, k}})
					if err != nil {
						b.Fatal(err)
					}
					bias, err := backend.Load(kernels.Vector, randomSource{[]int{n}})
					if err != nil {
						b.Fatal(err)
					}
					in, out := s.Tokens(k, kernels.Operand), s.Tokens(n, kernels.Operand)
					fill(of(in).at, 1)
					share(b, v, threads, 2*float64(m)*float64(n)*float64(k), func() {
						s.Linear(kernels.Linear{Out: out, In: in, W: w, Bias: bias})
						if err := s.Wait(); err != nil {
							b.Fatal(err)
						}
					})
				})
			}
		}
	})
}

// BenchmarkFused is a feed-forward's first half: the product and its GELU or
// GEGLU.
func BenchmarkFused(b *testing.B) {
	eachVariant(b, func(b *testing.B, v *variant, threads int) {
		for _, op := range []struct {
			then kernels.Activation
			n, k int
		}{{kernels.GELU, 1280, 320}, {kernels.GELU, 5120, 1280}, {kernels.GEGLU, 6144, 768}} {
			b.Run(fmt.Sprintf("%s/2048x%dx%d", op.then, op.n, op.k), func(b *testing.B) {
				backend, s := onBench(b, v, threads, 1, 2048)
				w, err := backend.Load(kernels.Projection, randomSource{[]int{op.n, op.k}})
				if err != nil {
					b.Fatal(err)
				}
				in, out := s.Tokens(op.k, kernels.Operand), s.Tokens(op.then.Cols(op.n), kernels.Operand)
				fill(of(in).at, 1)
				share(b, v, threads, 2*2048*float64(op.n)*float64(op.k), func() {
					s.Linear(kernels.Linear{Out: out, In: in, W: w, Then: op.then})
					if err := s.Wait(); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	})
}
