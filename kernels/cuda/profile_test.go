package cuda

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"seqembed/kernels"
)

// TestProfile checks that a profile contains each operation, with the number of its runs, its time and its FLOPs. On
// the fake device each item of work on a stream takes one millisecond.
func TestProfile(t *testing.T) {
	const flops = 2.0 * 14 * 32 * 16 // FLOPs of a product of 14 rows with a weight of [32, 16]
	const flops8 = 3 * 2.0 * 14 * 8 * 32
	entry := func(calls int, took time.Duration, flops float64) string {
		return fmt.Sprintf("%d calls, %v, %v FLOPs", calls, took, flops)
	}
	t.Run("own products", func(t *testing.T) {
		profileOf(t, false, map[string]string{
			"linear 32x16 + gelu": entry(3, 3*time.Millisecond, 3*flops),
			"linear 32x16":        entry(3, 6*time.Millisecond, 3*flops), // includes the wait for a copy of the previous run
			"linear 8x32":         entry(3, 6*time.Millisecond, flops8),
			"norm":                entry(3, 3*time.Millisecond, 0),
			"embed":               entry(3, 6*time.Millisecond, 0), // two launches for each run
		})
	})
	t.Run("cuBLAS", func(t *testing.T) {
		profileOf(t, true, map[string]string{
			"gelu":         entry(3, 3*time.Millisecond, 0),
			"linear 32x16": entry(6, 9*time.Millisecond, 6*flops),
			"linear 8x32":  entry(3, 6*time.Millisecond, flops8),
			"norm":         entry(3, 3*time.Millisecond, 0),
			"embed":        entry(3, 6*time.Millisecond, 0),
		})
	})
}

// profileOf checks the profile of three runs. Runs that fail, or that start while there is no profile, must not be in
// it.
func profileOf(t *testing.T, cublas bool, want map[string]string) {
	gpu := newFake(t)
	find := noCublas
	if cublas {
		find = newFakeCublas(gpu).find
	}
	b := openFake(t, gpu, kernels.BF16, find)
	defer b.Close()
	batch := batchOf(5, 9)
	n := newNet(t, b)
	up := kernels.Linear{W: n.load(kernels.Projection, 1, 1, 32, 16), Then: kernels.GELU}
	x := n.tokens(16)
	n.Output(n.linear(n.Linear(x, up, kernels.None), 2, 8))
	up.Then = kernels.Identity
	n.Output(n.norm(n.Linear(x, up, kernels.None)))
	r := n.compile(b, kernels.Limits{Tokens: 20, Sequences: 2})
	defer n.model.Close()
	defer r.Close()
	run := func() {
		t.Helper()
		if _, wait := n.start(r, batch); wait() != nil {
			t.Error("it fails")
		}
	}
	run()
	var profile kernels.Profile
	r.Profile(&profile)
	run()
	run()

	// A batch that fails is not measured, and later batches are measured as usual.
	gpu.mu.Lock()
	gpu.fails["launch"] = 700
	gpu.mu.Unlock()
	if _, wait := n.start(r, batch); wait() == nil {
		t.Error("a launch that fails is no error")
	}
	gpu.mu.Lock()
	delete(gpu.fails, "launch")
	gpu.mu.Unlock()
	run()
	r.Profile(nil)
	run()

	got := map[string]string{}
	for _, o := range profile.Ops() {
		got[o.Op] = fmt.Sprintf("%d calls, %v, %v FLOPs", o.Calls, o.Took, o.FLOPs)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the profile has %v, want %v", got, want)
	}
}
