package cuda

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"seqembed/kernels"
)

// A profile has each operation of a block once a run, those that one kernel
// computes together, and the time of their launches: on the fake device a
// millisecond each.
func TestProfile(t *testing.T) {
	const flops = 2.0 * 14 * 32 * 16 // of one product
	entry := func(calls int, took time.Duration, flops float64) string {
		return fmt.Sprintf("%d calls, %v, %v FLOPs", calls, took, flops)
	}
	t.Run("own products", func(t *testing.T) {
		profileOf(t, false, map[string]string{
			"linear 32x16 + gelu": entry(3, 3*time.Millisecond, 3*flops),
			"linear 32x16":        entry(3, 3*time.Millisecond, 3*flops),
			"norm":                entry(3, 3*time.Millisecond, 0),
		})
	})
	t.Run("cuBLAS", func(t *testing.T) {
		profileOf(t, true, map[string]string{
			"gelu":         entry(3, 3*time.Millisecond, 0),
			"linear 32x16": entry(6, 6*time.Millisecond, 6*flops),
			"norm":         entry(3, 3*time.Millisecond, 0),
		})
	})
}

// profileOf compares the profile of three runs with what is wanted.
func profileOf(t *testing.T, cublas bool, want map[string]string) {
	gpu := newFake(t)
	find := noCublas
	if cublas {
		find = newFakeCublas(gpu).find
	}
	b := openFake(t, gpu, BF16, find)
	defer b.Close()
	batch := batchOf(5, 9)
	s, err := b.NewStream(kernels.Limits{Tokens: 20, Sequences: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	load := func(role kernels.Role, shape ...int) kernels.Weight {
		w, err := b.Load(role, randomTensor(1, 1, shape...))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	x, y, in := s.Tokens(32, kernels.Residual), s.Tokens(32, kernels.Operand), s.Tokens(16, kernels.Operand)
	up, gain := load(kernels.Projection, 32, 16), load(kernels.Vector, 32)
	run := func() {
		t.Helper()
		s.Begin(batch)
		s.Write(in, make([]float32, 14*16))
		s.Linear(kernels.Linear{Out: y, In: in, W: up, Then: kernels.GELU})
		s.Linear(kernels.Linear{Out: x, In: in, W: up})
		s.Norm(kernels.Norm{Out: y, In: x, Gain: gain, Bias: gain, Eps: 1e-5})
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	run()
	var profile kernels.Profile
	s.(kernels.Profiler).Profile(&profile)
	run()
	run()

	// What failed is not measured, and does not spoil what follows.
	s.Begin(batch)
	s.Norm(kernels.Norm{Out: y, In: x, Gain: gain, Bias: gain, Eps: 1e-5})
	s.Norm(kernels.Norm{Out: in, In: x, Gain: gain, Bias: gain, Eps: 1e-5})
	if s.Wait() == nil {
		t.Error("a norm to another width was accepted")
	}
	run()
	s.(kernels.Profiler).Profile(nil)
	run()

	got := map[string]string{}
	for _, o := range profile.Ops() {
		got[o.Op] = fmt.Sprintf("%d calls, %v, %v FLOPs", o.Calls, o.Took, o.FLOPs)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the profile has %v, want %v", got, want)
	}
}
