package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

// BenchmarkOp reports the time of each operation at the sizes of DNABERT-S and ESM-2 650M. It reads the time from the
// backend's profile, without the operations that compute the input.
func BenchmarkOp(b *testing.B) {
	const tokens = 2048
	for _, name := range []string{"dnabert-s", "esm2-650m"} {
		config, _ := transformer.Families.Config(name)
		h, f, heads := config.Hidden, config.Intermediate, config.Heads
		batch, _ := sampleBatch(config, tokens)
		run := func(op string, cols int, build func(o *ops, x kernels.Value) kernels.Value) {
			b.Run(fmt.Sprintf("%s/%s", name, op), func(b *testing.B) { benchmarkOp(b, batch, cols, build) })
		}
		linear := func(op string, out, in int, then kernels.Activation) {
			run(op, in, func(o *ops, x kernels.Value) kernels.Value {
				l := kernels.Linear{W: o.random(kernels.Projection, out, in), Bias: o.random(kernels.Vector, out), Then: then}
				return o.Linear(x, l, kernels.None)
			})
		}
		linear("linear qkv", 3*h, h, kernels.Identity)
		linear("linear out", h, h, kernels.Identity)
		linear("linear up, gelu", f, h, kernels.GELU)
		linear("linear up, geglu", 2*f, h, kernels.GEGLU)
		linear("linear down", h, f, kernels.Identity)
		run("norm", h, func(o *ops, x kernels.Value) kernels.Value {
			return o.Norm(x, kernels.Norm{Gain: o.random(kernels.Vector, h), Bias: o.random(kernels.Vector, h), Eps: 1e-5})
		})
		run("attention", 3*h, func(o *ops, x kernels.Value) kernels.Value {
			return o.Attention(x, kernels.Attention{Heads: heads, Scale: 0.125})
		})
		run("attention, rotary", 3*h, func(o *ops, x kernels.Value) kernels.Value {
			rotary := &kernels.Rotary{QScale: 1, InvFreq: make([]float32, config.HeadDim()/2)}
			return o.Attention(x, kernels.Attention{Heads: heads, Scale: 0.125, Rotary: rotary})
		})
		run("pool", h, func(o *ops, x kernels.Value) kernels.Value { return o.Pool(x, kernels.Range{}) })
	}
}

// ops is a program with one operation to measure, which reads the result of an Embed. It creates random weights.
type ops struct {
	*kernels.Program
	b     *testing.B
	model kernels.Model
	rng   *rand.Rand
}

func benchmarkOp(b *testing.B, batch kernels.Batch, cols int, build func(o *ops, x kernels.Value) kernels.Value) {
	backend := openDevice(b)
	defer backend.Close()
	o := &ops{new(kernels.Program), b, backend.NewModel(), rand.New(rand.NewPCG(3, 4))}
	defer o.model.Close()
	most := int32(0)
	for _, id := range batch.IDs {
		most = max(most, id)
	}
	v := build(o, o.Embed(kernels.Embed{Table: o.random(kernels.Lookup, int(most)+1, cols), Scale: 1, Mask: kernels.NoMask}))
	o.Output(v)
	r, err := backend.Compile(o.Program, kernels.Limits{Tokens: len(batch.IDs), Sequences: batch.Sequences()})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	var profile kernels.Profile
	r.Profile(&profile)
	dst := [][]float32{make([]float32, o.Rows(v, batch)*o.Cols(v))}
	for b.Loop() {
		if err := r.Start(batch, dst)(); err != nil {
			b.Fatal(err)
		}
	}
	var took time.Duration
	var calls, flops = 0, 0.0
	for _, e := range profile.Ops() { // an activation may have an entry of its own
		if e.Op != "embed" && e.Op != "output" {
			took, calls, flops = took+e.Took, max(calls, e.Calls), flops+e.FLOPs
		}
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(calls*len(batch.IDs)), "ns/token")
	b.ReportMetric(flops/took.Seconds()/1e9, "GFLOP/s")
}

func (o *ops) values(n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = o.rng.Float32() - 0.5
	}
	return values
}

func (o *ops) random(role kernels.Role, shape ...int) kernels.Weight {
	n := 1
	for _, d := range shape {
		n *= d
	}
	w, err := o.model.Load(role, kernelstest.Tensor{Dims: shape, Values: o.values(n)})
	if err != nil {
		o.b.Fatal(err)
	}
	return w
}

// BenchmarkTokenize reports the MB/s and tokens/s of tokenizing on one core, for DNA of several lengths and a protein.
func BenchmarkTokenize(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 6))
	letters := func(alphabet string, n int) []byte {
		seq := make([]byte, n)
		for i := range seq {
			seq[i] = alphabet[rng.IntN(len(alphabet))]
		}
		return seq
	}
	for _, n := range []int{150, 10_000, 1_000_000} {
		tokenize(b, fmt.Sprintf("dna/%d", n), tokenizer.SyntheticDNA(), letters("ACGT", n))
	}
	tokenize(b, "protein/350", transformer.ESM2.NewTokenizer(), letters("LAGVSERTIDPKQNFYMHWC", 350))
}

func tokenize(b *testing.B, name string, t tokenizer.Tokenizer, seq []byte) {
	b.Run(name, func(b *testing.B) {
		b.SetBytes(int64(len(seq)))
		var ids []int32
		for b.Loop() {
			ids, _ = t.Append(ids[:0], seq)
		}
		report(b, float64(len(ids)), 0)
	})
}

func report(b *testing.B, tokens, flops float64) {
	seconds := b.Elapsed().Seconds() / float64(b.N)
	if tokens > 0 {
		b.ReportMetric(tokens/seconds, "tokens/s")
	}
	if flops > 0 {
		b.ReportMetric(flops/seconds/1e9, "GFLOP/s")
	}
}
