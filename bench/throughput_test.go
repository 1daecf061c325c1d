package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"seqembed/kernels"
	"seqembed/tokenizer"
	"seqembed/transformer"
)

// BenchmarkOp times each operation by itself at the sizes of DNABERT-S and of
// ESM-2 650M.
func BenchmarkOp(b *testing.B) {
	const tokens = 2048
	for _, name := range []string{"dnabert-s", "esm2-650m"} {
		config, _ := transformer.KnownConfig(name)
		h, f, heads := config.Hidden, config.Intermediate, config.Heads
		batch, lengths := sampleBatch(config, tokens)
		run := func(op string, flops float64, prepare func(o *ops) func()) {
			b.Run(fmt.Sprintf("%s/%s", name, op), func(b *testing.B) {
				o := newOps(b, batch)
				defer o.backend.Close()
				enqueue := prepare(o)
				for b.Loop() {
					o.Begin(batch)
					enqueue()
					if err := o.Wait(); err != nil {
						b.Fatal(err)
					}
				}
				report(b, float64(len(batch.IDs)), flops)
			})
		}
		linear := func(op string, out, in int, then kernels.Activation) {
			run(op, 2*float64(len(batch.IDs))*float64(out)*float64(in), func(o *ops) func() {
				l := kernels.Linear{Out: o.Tokens(then.Cols(out), kernels.Operand), In: o.filled(in),
					W: o.random(kernels.Projection, out, in), Bias: o.random(kernels.Vector, out), Then: then}
				return func() { o.Linear(l) }
			})
		}
		run("embed", 0, func(o *ops) func() {
			e := kernels.Embed{Out: o.Tokens(h, kernels.Residual), Table: o.random(kernels.Lookup, config.Vocabulary, h), Scale: 1, Mask: kernels.NoMask}
			return func() { o.Embed(e) }
		})
		linear("linear qkv", 3*h, h, kernels.Identity)
		linear("linear out", h, h, kernels.Identity)
		linear("linear up, gelu", f, h, kernels.GELU)
		linear("linear up, geglu", 2*f, h, kernels.GEGLU)
		linear("linear down", h, f, kernels.Identity)
		run("norm", 0, func(o *ops) func() {
			n := kernels.Norm{Out: o.Tokens(h, kernels.Operand), In: o.filled(h), Gain: o.random(kernels.Vector, h), Bias: o.random(kernels.Vector, h), Eps: 1e-5}
			return func() { o.Norm(n) }
		})
		attention := 0.0
		for _, n := range lengths {
			attention += 4 * float64(n) * float64(n) * float64(h)
		}
		run("attention", attention, func(o *ops) func() {
			a := kernels.Attention{Out: o.Tokens(h, kernels.Operand), QKV: o.filled(3 * h), Heads: heads, Scale: 0.125}
			return func() { o.Attention(a) }
		})
		run("attention, rotary", attention, func(o *ops) func() {
			r := kernels.Rotary{QScale: 1, InvFreq: make([]float32, config.HeadDim()/2)}
			a := kernels.Attention{Out: o.Tokens(h, kernels.Operand), QKV: o.filled(3 * h), Heads: heads, Scale: 0.125, Rotary: &r}
			return func() { o.Attention(a) }
		})
		run("pool", 0, func(o *ops) func() {
			p := kernels.Pool{Out: o.Sequences(h), In: o.filled(h)}
			return func() { o.Pool(p) }
		})
	}
}

// ops is a stream with what the operations of a benchmark read.
type ops struct {
	kernels.Stream
	b       *testing.B
	backend kernels.Backend
	rows    int
	rng     *rand.Rand
}

func newOps(b *testing.B, batch kernels.Batch) *ops {
	backend := openDevice(b)
	s, err := backend.NewStream(kernels.Limits{Tokens: len(batch.IDs), Sequences: batch.Sequences()})
	if err != nil {
		b.Fatal(err)
	}
	s.Begin(batch)
	return &ops{s, b, backend, len(batch.IDs), rand.New(rand.NewPCG(3, 4))}
}

func (o *ops) filled(cols int) kernels.Buffer {
	buf := o.Tokens(cols, kernels.Residual|kernels.Operand)
	o.Write(buf, o.values(o.rows*cols))
	return buf
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
	w, err := o.backend.Load(role, source{shape, o.values(n)})
	if err != nil {
		o.b.Fatal(err)
	}
	return w
}

type source struct {
	shape  []int
	values []float32
}

func (s source) Shape() []int { return s.shape }

func (s source) ReadRows(dst []float32, first int) error {
	copy(dst, s.values[first*s.shape[len(s.shape)-1]:])
	return nil
}

// BenchmarkTokenize reports MB/s on one core, by record length.
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
	tokenize(b, "protein/350", tokenizer.NewESM2(), letters("LAGVSERTIDPKQNFYMHWC", 350))
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
