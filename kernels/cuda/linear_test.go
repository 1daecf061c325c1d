package cuda

import (
	"testing"

	"seqembed/kernels"
)

// TestWaitLeavesNothingBehind runs batches: after each wait the device has nothing left to do, and after the first
// nothing more is pinned.
func TestWaitLeavesNothingBehind(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, BF16, noCublas)
	defer b.Close()
	n := newNet(t, b)
	x := n.norm(n.tokens(16))
	n.Output(n.Pool(x, kernels.Range{}))
	n.Output(n.norm(x))
	r := n.compile(b, kernels.Limits{Tokens: 50, Sequences: 3})
	defer n.model.Close()
	defer r.Close()
	pinned := 0
	for i, lengths := range [][]int{{50}, {3, 9}, {7, 20, 20}, {1}} {
		if _, wait := n.start(r, batchOf(lengths...)); wait() != nil {
			t.Fatal("it fails")
		}
		f.mu.Lock()
		for _, q := range f.streams {
			if q.done != len(q.work) {
				t.Errorf("batch %d: wait returns with %d of %d tasks done", i, q.done, len(q.work))
			}
		}
		if i == 0 {
			pinned = len(f.hosts)
		} else if len(f.hosts) != pinned {
			t.Errorf("batch %d: %d pieces of pinned memory, and %d after the first", i, len(f.hosts), pinned)
		}
		f.mu.Unlock()
	}
}
