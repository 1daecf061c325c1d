package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"seqembed/bench/peak"
	"seqembed/kernels"
)

// shapes lists N and K, the numbers of output and input columns, of some matrix products in DNABERT-S and in ESM-2 8M
// and 650M.
var shapes = [][2]int{{2304, 768}, {6144, 768}, {768, 3072}, {960, 320}, {1280, 320}, {320, 1280}, {3840, 1280}, {5120, 1280}}

// randomSource is a tensor of random values.
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

// benchOp compiles a program whose last operation before the Output is the operation to measure, and returns a function
// that runs only this operation. The sequences have equal length. The function build receives random rows and appends
// the operation.
func benchOp(b *testing.B, s setup, sequences, length, cols int,
	build func(m kernels.Model, p *kernels.Program, x kernels.Value) kernels.Value) (run func()) {
	backend := newBackend(s.threads, s.variant, s.format)
	m := backend.NewModel()
	b.Cleanup(func() { m.Close(); backend.Close() })
	tokens := sequences * length
	var p kernels.Program
	table := benchWeight(b, m, kernels.Lookup, tokens, cols)
	p.Output(build(m, &p, p.Embed(kernels.Embed{Table: table, Scale: 1, Mask: kernels.NoMask})))
	compiled, err := backend.Compile(&p, kernels.Limits{Tokens: tokens, Sequences: sequences})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { compiled.Close() })
	batch := kernels.Batch{}
	for q := range sequences {
		ids := make([]int32, length)
		for i := range ids {
			ids[i] = int32(q*length + i)
		}
		batch.Append(ids)
	}
	out := p.Outputs()[0]
	if err := compiled.Start(batch, [][]float32{make([]float32, p.Rows(out, batch)*p.Cols(out))})(); err != nil {
		b.Fatal(err)
	}
	r := compiled.(*runner)
	r.batch = batch
	return r.steps[len(r.steps)-2].run // the last step is the Output
}

func benchWeight(b *testing.B, m kernels.Model, role kernels.Role, shape ...int) kernels.Weight {
	w, err := m.Load(role, randomSource{shape})
	if err != nil {
		b.Fatal(err)
	}
	return w
}

// reportRate reports the rate of an operation with the given number of FLOPs. It also reports the rate as a share of
// the peak rate: the measured peak rate of one core times the number of threads. It takes the best run, because other
// processes use the machine too.
func reportRate(b *testing.B, s setup, flops float64, run func()) {
	run() // this first run is not measured, because it touches new pages of memory
	best := time.Duration(math.MaxInt64)
	top := peak.Rate(s.peak)
	for b.Loop() {
		start := time.Now()
		run()
		best = min(best, time.Since(start))
	}
	rate := flops / float64(best.Nanoseconds())
	b.ReportMetric(rate, "GFLOP/s")
	if top = max(top, peak.Rate(s.peak)); top > 0 {
		b.ReportMetric(100*rate/top/float64(s.threads), "%peak")
	}
}

// setup is a configuration for benchmarks.
type setup struct {
	variant *variant
	format  format
	peak    string // name of the instruction set in package peak
	threads int
}

// eachSetup runs a benchmark with every implementation of the inner loops that this machine supports (see variants),
// with one thread and with two. If an implementation has instructions for bfloat16, the benchmark also runs in
// bfloat16.
func eachSetup(b *testing.B, run func(b *testing.B, s setup)) {
	var list []setup
	for _, v := range variants() {
		list = append(list, setup{variant: v, peak: v.name})
		if v.pairs.fast {
			list = append(list, setup{variant: v, format: bf16, peak: "bf16"})
		}
	}
	for _, s := range list {
		for _, s.threads = range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", s.peak, s.threads), func(b *testing.B) { run(b, s) })
		}
	}
}

func BenchmarkLinear(b *testing.B) {
	eachSetup(b, func(b *testing.B, s setup) {
		for _, shape := range shapes {
			for _, m := range []int{64, 512, 2048} {
				benchProduct(b, s, kernels.Identity, m, shape[0], shape[1])
			}
		}
	})
}

// BenchmarkFused measures the first product of a feed-forward layer, with its GELU or GEGLU.
func BenchmarkFused(b *testing.B) {
	eachSetup(b, func(b *testing.B, s setup) {
		benchProduct(b, s, kernels.GELU, 2048, 1280, 320)
		benchProduct(b, s, kernels.GELU, 2048, 5120, 1280)
		benchProduct(b, s, kernels.GEGLU, 2048, 6144, 768)
	})
}

// benchProduct measures a product [m, k]·[k, n] with a bias and an activation.
func benchProduct(b *testing.B, s setup, then kernels.Activation, m, n, k int) {
	b.Run(fmt.Sprintf("%s/%dx%dx%d", then, m, n, k), func(b *testing.B) {
		run := benchOp(b, s, 1, m, k,
			func(model kernels.Model, p *kernels.Program, x kernels.Value) kernels.Value {
				w, bias := benchWeight(b, model, kernels.Projection, n, k), benchWeight(b, model, kernels.Vector, n)
				return p.Linear(x, kernels.Linear{W: w, Bias: bias, Then: then}, kernels.None)
			})
		reportRate(b, s, 2*float64(m)*float64(n)*float64(k), run)
	})
}
