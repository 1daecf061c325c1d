package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	"seqembed/kernels"
)

// Batches that are submitted before earlier ones have been waited for give
// what they give alone, whatever order the device takes; a failed one harms no
// other.
func TestSubmitsOverlap(t *testing.T) {
	batches := []kernels.Batch{batchOf(9, 2), batchOf(1, 5, 3), batchOf(12), batchOf(4, 4)}
	limits := kernels.Limits{Tokens: 12, Sequences: 3}
	for seed := range uint64(8) {
		f := newFake(t)
		if seed > 0 {
			f.eagerness = rand.New(rand.NewPCG(seed, 7))
		}
		b := openFake(t, f, BF16, noCublas)
		s, err := b.NewStream(limits)
		if err != nil {
			t.Fatal(err)
		}
		var profile kernels.Profile
		if seed%2 == 1 {
			s.(kernels.Profiler).Profile(&profile)
		}
		const cols = 32
		load := func(role kernels.Role, shape ...int) kernels.Weight {
			w, err := b.Load(role, randomTensor(1, 1, shape...))
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		table, gain := load(kernels.Lookup, 11, cols), load(kernels.Vector, cols)
		x, pooled := s.Tokens(cols, kernels.Residual), s.Sequences(cols)
		submit := func(b kernels.Batch, mistake bool) (tokens, means []float32, wait func() error) {
			tokens, means = make([]float32, len(b.IDs)*cols), make([]float32, b.Sequences()*cols)
			s.Begin(b)
			s.Embed(kernels.Embed{Out: x, Table: table, Scale: 1, Mask: kernels.NoMask})
			if mistake {
				s.Norm(kernels.Norm{Out: pooled, In: x, Gain: gain, Bias: gain, Eps: 1})
			}
			s.Norm(kernels.Norm{Out: x, In: x, Gain: gain, Bias: gain, Eps: 1})
			s.Read(tokens, x)
			s.Pool(kernels.Pool{Out: pooled, In: x})
			s.Read(means, pooled)
			return tokens, means, s.Submit()
		}
		type results struct {
			tokens, means []float32
			wait          func() error
		}
		var alone, together []results
		for _, b := range batches {
			tokens, means, wait := submit(b, false)
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			alone = append(alone, results{tokens, means, nil})
		}
		for i, b := range batches {
			tokens, means, wait := submit(b, i == 2)
			together = append(together, results{tokens, means, wait})
		}
		for i, r := range together {
			err := r.wait()
			if i == 2 {
				if err == nil {
					t.Error("a norm to another shape was accepted")
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.tokens, alone[i].tokens) || !slices.Equal(r.means, alone[i].means) {
				t.Errorf("seed %d: batch %d depends on the others under way", seed, i)
			}
		}
		if seed%2 == 1 {
			for _, o := range profile.Ops() {
				if want := map[string]int{"embed": 7, "norm": 7, "pool": 7}[o.Op]; o.Calls != want {
					t.Errorf("%s was measured %d times, want %d", o.Op, o.Calls, want)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		f.settled()
	}
}
