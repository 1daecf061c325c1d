package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// turning is a stream with what a rotation and an attention need.
type turning struct {
	kernels.Stream
	t          *testing.T
	qkv, other kernels.Buffer
	context    kernels.Buffer
	invFreq    []float32
	batch      kernels.Batch
}

const turnedWidth = 3 * testWidth

func newTurning(t *testing.T, b kernels.Backend, kind kernels.Kind) *turning {
	t.Helper()
	batch := batchOf(40, 3)
	s, err := b.NewStream(kernels.Limits{Tokens: len(batch.IDs), Sequences: 2})
	if err != nil {
		t.Fatal(err)
	}
	v := &turning{Stream: s, t: t, qkv: s.Tokens(turnedWidth, kind), other: s.Tokens(turnedWidth, kind),
		context: s.Tokens(testWidth, kernels.Operand),
		invFreq: []float32{1, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.001}, batch: batch}
	s.Begin(batch)
	s.Write(v.qkv, v.draw(1))
	s.Write(v.other, v.draw(2))
	return v
}

func (v *turning) draw(seed uint64) []float32 {
	return randomTensor(seed, 1, len(v.batch.IDs)*turnedWidth).values
}

func (v *turning) rotary(qkv kernels.Buffer) {
	v.Rotary(kernels.Rotary{QKV: qkv, Heads: testHeads, QScale: 0.25, InvFreq: v.invFreq})
}

func (v *turning) attention(qkv kernels.Buffer, heads int) {
	v.Attention(kernels.Attention{Out: v.context, QKV: qkv, Heads: heads, Scale: 1})
}

func (v *turning) refused(o kernels.Attention) {
	v.t.Helper()
	v.Attention(o)
	var op *kernels.OpError
	if err := v.Wait(); !errors.As(err, &op) || op.Op != "attention" {
		v.t.Errorf("an attention that cannot be gives %v", err)
	}
}

func (v *turning) read(b kernels.Buffer) []float32 {
	values := make([]float32, len(v.batch.IDs)*b.Cols())
	v.Read(values, b)
	return values
}

func (v *turning) wait() {
	v.t.Helper()
	if err := v.Wait(); err != nil {
		v.t.Fatal(err)
	}
}

// TestRotationsThatAreHeldBack lets an attention or something else follow a
// rotation: the results are those of the reference, within a few roundings of
// bfloat16, and the kernels those that can be fused.
func TestRotationsThatAreHeldBack(t *testing.T) {
	const both = kernels.Residual | kernels.Operand
	for _, c := range []struct {
		name     string
		kind     kernels.Kind
		run      func(v *turning) (results [][]float32)
		launched string // in bf16, without types and what is not of interest here
		fp32     string // where that is different
	}{
		{"attention", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "attention_rotary_16", ""},
		{"attention by another view", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.Reuse(v.qkv, turnedWidth))
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "attention_rotary_16", ""},
		{"attention over both kinds", both, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary narrow attention_16", "attention_rotary_16"},
		{"attention over another buffer", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.attention(v.other, testHeads)
			return [][]float32{v.read(v.context), v.read(v.qkv)}
		}, "rotary attention_16", ""},
		{"attention of other heads", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.attention(v.qkv, 1)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_32", ""},
		{"heads of another size", kernels.Operand, func(v *turning) [][]float32 {
			v.Rotary(kernels.Rotary{QKV: v.qkv, Heads: 1, QScale: 0.25, InvFreq: append(v.invFreq, v.invFreq...)})
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_16", ""},
		{"attention by a narrower view", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.Attention(kernels.Attention{Out: v.Reuse(v.context, testDim), QKV: v.Reuse(v.qkv, 3*testDim), Heads: 1, Scale: 1})
			return nil // what a view of another width holds is undefined
		}, "rotary attention_16", ""},
		{"two rotations", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.rotary(v.qkv)
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_rotary_16", ""},
		{"two attentions", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.attention(v.qkv, testHeads)
			first := v.read(v.context)
			v.rotary(v.other)
			v.attention(v.other, testHeads)
			return [][]float32{first, v.read(v.context)}
		}, "attention_rotary_16 attention_rotary_16", ""},
		{"a read", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			turned := v.read(v.qkv)
			v.attention(v.qkv, testHeads)
			return [][]float32{turned, v.read(v.context)}
		}, "rotary attention_16", ""},
		{"a write", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.Write(v.qkv, v.draw(3))
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_16", ""},
		{"another operation", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.Activate(kernels.Activate{X: v.qkv})
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary activate attention_16", ""},
		{"the end of a batch", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.wait()
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_16", ""},
		{"a new batch", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			v.Begin(batchOf(3, 40))
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_16", ""},
		{"frequencies that change", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.qkv)
			clear(v.invFreq)
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "attention_rotary_16", ""},
		{"an attention of heads that do not fit", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.other)
			v.refused(kernels.Attention{Out: v.context, QKV: v.other, Heads: 3, Scale: 1})
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "rotary attention_16", ""},
		{"an attention with too few slopes", kernels.Operand, func(v *turning) [][]float32 {
			v.rotary(v.other)
			v.refused(kernels.Attention{Out: v.context, QKV: v.other, Heads: testHeads, Scale: 1, Slopes: []float32{1}})
			v.attention(v.qkv, testHeads)
			return [][]float32{v.read(v.context)}
		}, "attention_16", ""},
	} {
		s := newTurning(t, ref.New(), c.kind)
		want := c.run(s)
		s.wait()
		for dtype, bound := range map[DType]float64{BF16: 2e-2, FP32: 1e-5} {
			gpu := newFake(t)
			gpu.eagerness = rand.New(rand.NewPCG(3, 7))
			b := openFake(t, gpu, dtype, noCublas)
			s := newTurning(t, b, c.kind)
			got := c.run(s)
			s.wait()
			for i := range want {
				if e := distance(got[i], want[i]); !(e < bound) {
					t.Errorf("%s, %s: result %d errs by %g", c.name, dtype, i, e)
				}
			}
			launched := regexp.MustCompile(`positions|_bf16\b|_fp32\b`).ReplaceAllString(strings.Join(gpu.launched, " "), "")
			expected := c.launched
			if dtype == FP32 && c.fp32 != "" {
				expected = c.fp32
			}
			if launched = strings.Join(strings.Fields(launched), " "); launched != expected {
				t.Errorf("%s, %s: the kernels are %q, want %q", c.name, dtype, launched, expected)
			}
			if err := errors.Join(s.Close(), b.Close()); err != nil {
				t.Error(err)
			}
			gpu.settled()
		}
	}
}

// TestRefusedRotation: the first mistake is what Wait says, and nothing of it
// is left for the next attention.
func TestRefusedRotation(t *testing.T) {
	gpu := newFake(t)
	b := openFake(t, gpu, BF16, noCublas)
	defer b.Close()
	v := newTurning(t, b, kernels.Operand)
	defer v.Close()
	for _, invFreq := range [][]float32{v.invFreq[:5], v.invFreq[:2]} {
		qkv := v.Reuse(v.qkv, 3*testHeads*2*2)
		v.Rotary(kernels.Rotary{QKV: qkv, Heads: testHeads, QScale: 1, InvFreq: invFreq})
		v.attention(v.qkv, 3)
		var op *kernels.OpError
		if err := v.Wait(); !errors.As(err, &op) || op.Op != "rotary" {
			t.Errorf("%d frequencies give %v", len(invFreq), err)
		}
	}
	v.attention(v.qkv, testHeads)
	v.wait()
	if launched := strings.Join(gpu.launched, " "); launched != "positions attention_16_bf16" {
		t.Errorf("the launches are %s", launched)
	}
}

// TestProfileOfARotation: a rotation that the attention applies is one entry
// with it, one that is sent alone another.
func TestProfileOfARotation(t *testing.T) {
	b := openFake(t, newFake(t), BF16, noCublas)
	defer b.Close()
	v := newTurning(t, b, kernels.Operand)
	defer v.Close()
	var profile kernels.Profile
	v.Stream.(kernels.Profiler).Profile(&profile)
	v.rotary(v.qkv)
	v.attention(v.qkv, testHeads)
	v.rotary(v.qkv)
	v.wait()
	calls := map[string]int{}
	for _, o := range profile.Ops() {
		calls[o.Op] = o.Calls
	}
	if len(calls) != 2 || calls["rotary + attention"] != 1 || calls["rotary"] != 1 {
		t.Errorf("the profile has %v", calls)
	}
}

// turnedAttention runs an attention that applies the rotation before it, and
// both kernels with a read between them.
func turnedAttention(t *testing.T, b kernels.Backend, d int, batch kernels.Batch) (together, apart []float32) {
	t.Helper()
	const heads = 3
	rows := len(batch.IDs)
	s, err := b.NewStream(kernels.Limits{Tokens: rows, Sequences: batch.Sequences()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	qkv, out := s.Tokens(3*heads*d, kernels.Operand), s.Tokens(heads*d, kernels.Operand)
	o := kernels.Rotary{QKV: qkv, Heads: heads, QScale: float32(1 / math.Sqrt(float64(d))), InvFreq: make([]float32, d/2)}
	for j := range o.InvFreq {
		o.InvFreq[j] = float32(math.Pow(10000, -2*float64(j)/float64(d)))
	}
	var results [2][]float32
	for i := range results {
		results[i] = make([]float32, rows*heads*d)
		s.Begin(batch)
		s.Write(qkv, randomTensor(uint64(d), 1, rows*3*heads*d).values)
		s.Rotary(o)
		if i == 1 {
			s.Read(make([]float32, rows*3*heads*d), qkv)
		}
		s.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: heads, Scale: 1})
		s.Read(results[i], out)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	return results[0], results[1]
}

// TestRotationInAttention: the fake's loops give the same bits both ways, as
// the kernels have to; what is tested is how they are launched for every head
// size.
func TestRotationInAttention(t *testing.T) {
	for _, dtype := range []DType{FP32, BF16, FP16} {
		gpu := newFake(t)
		b := openFake(t, gpu, dtype, noCublas)
		for _, d := range attentionHeads {
			if together, apart := turnedAttention(t, b, d, batchOf(33, 1, 130)); !slices.Equal(together, apart) {
				t.Errorf("%s, heads of %d columns: the results differ", dtype, d)
			}
			if name := fmt.Sprintf("attention_rotary_%d_%s", d, dtype); !slices.Contains(gpu.launched, name) {
				t.Errorf("%s was not launched", name)
			}
		}
		b.Close()
		gpu.settled()
	}
}

// TestGPURotationInAttention wants the same of the first device.
func TestGPURotationInAttention(t *testing.T) {
	batch := batchOf(65, 1, 130, 300, 1025)
	if testing.Short() {
		batch = batchOf(65, 1, 130)
	}
	for _, dtype := range []DType{FP32, BF16, FP16} {
		b := requireGPU(t, dtype)
		for _, d := range attentionHeads {
			if together, apart := turnedAttention(t, b, d, batch); !slices.Equal(together, apart) {
				t.Errorf("%s, heads of %d columns: the results differ", dtype, d)
			}
		}
		b.Close()
	}
}
