package cuda

import (
	"fmt"
	"testing"
	"time"

	"seqembed/kernels"
)

// A profile has each operation of a block once a run, fused ones together, and
// the time of their launches: on the fake device a millisecond each.
func TestProfile(t *testing.T) {
	gpu := newFake(t)
	b := openFake(t, gpu, BF16, noCublas)
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
		s.Linear(kernels.Linear{Out: y, In: in, W: up})
		s.Activate(kernels.Activate{X: y})
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
	flops := 3 * 2.0 * 14 * 32 * 16
	for op, want := range map[string]string{
		"linear 32x16 + gelu": fmt.Sprintf("3 calls, %v, %v FLOPs", 3*time.Millisecond, flops),
		"linear 32x16":        fmt.Sprintf("3 calls, %v, %v FLOPs", 3*time.Millisecond, flops),
		"norm":                fmt.Sprintf("3 calls, %v, 0 FLOPs", 3*time.Millisecond),
	} {
		if got[op] != want {
			t.Errorf("%s: %s, want %s", op, got[op], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("the profile has %v", got)
	}
}
