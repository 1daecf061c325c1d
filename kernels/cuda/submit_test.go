package cuda

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
)

// TestStartsOverlap checks that several batches may be started before the first is waited for. Each batch must have the
// same results as alone, in any order of the device's work. A profile must contain all of them.
func TestStartsOverlap(t *testing.T) {
	batches := []kernels.Batch{batchOf(9, 2), batchOf(1, 5, 3), batchOf(12), batchOf(4, 4)}
	for seed := range uint64(8) {
		f := newFake(t)
		if seed > 0 {
			f.eagerness = rand.New(rand.NewPCG(seed, 7))
		}
		b := openFake(t, f, kernels.BF16, noCublas)
		n := newNet(t, b)
		x := n.norm(n.tokens(32))
		n.Output(x)
		n.Output(n.Pool(x, kernels.Range{}))
		r := n.compile(b, kernels.Limits{Tokens: 12, Sequences: 3})
		var profile kernels.Profile
		if seed%2 == 1 {
			r.Profile(&profile)
		}
		var alone, together [][][]float32
		for _, b := range batches {
			dst, wait := n.start(r, b)
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			alone = append(alone, dst)
		}
		var waits []func() error
		for _, b := range batches {
			dst, wait := n.start(r, b)
			together, waits = append(together, dst), append(waits, wait)
		}
		for i, wait := range waits {
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(together[i], alone[i], slices.Equal) {
				t.Errorf("seed %d: batch %d depends on the others under way", seed, i)
			}
		}
		for _, o := range profile.Ops() {
			if o.Calls != 8 {
				t.Errorf("%s was measured %d times, want 8", o.Op, o.Calls)
			}
		}
		if err := errors.Join(r.Close(), n.model.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
		f.checkFreed()
	}
}

// TestPinnedMemoryThatIsNotThere checks that the error for too little host memory is not ErrOutOfMemory, because a
// smaller batch would not help.
func TestPinnedMemoryThatIsNotThere(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.FP32, noCublas)
	defer b.Close()
	n := newNet(t, b)
	n.Output(n.tokens(16))
	r := n.compile(b, kernels.Limits{Tokens: 12, Sequences: 3})
	defer n.model.Close()
	defer r.Close()
	f.mu.Lock()
	f.fails["cuMemAllocHost"] = driver.OutOfMemory
	f.mu.Unlock()
	if _, wait := n.start(r, batchOf(9)); true {
		if err := wait(); err == nil || errors.Is(err, kernels.ErrOutOfMemory) {
			t.Errorf("no pinned memory: %v", err)
		}
	}
}

// TestBatchIsSentWhileAnotherComputes checks that the upload of a batch waits only for the batch before the previous
// one, whose buffer it overwrites, and not for the previous batch.
func TestBatchIsSentWhileAnotherComputes(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.BF16, noCublas)
	n := newNet(t, b)
	n.Output(n.Pool(n.tokens(32), kernels.Range{}))
	own := n.compile(b, kernels.Limits{Tokens: 12, Sequences: 3}).(*runner)
	f.mu.Lock()
	before := len(f.streams[driver.Handle(own.compute)].work)
	f.mu.Unlock()
	var waits []func() error
	// start starts a batch and runs its uploads. It then returns the number of work items on the compute stream that
	// have run, and the number of all work items on it.
	start := func(b kernels.Batch) (done, all int) {
		_, wait := n.start(own, b)
		waits = append(waits, wait)
		f.mu.Lock()
		defer f.mu.Unlock()
		loads, compute := f.streams[driver.Handle(own.loads)], f.streams[driver.Handle(own.compute)]
		f.run(fakeMark{loads, len(loads.work)})
		return compute.done, len(compute.work)
	}
	_, first := start(batchOf(9, 2))
	done, second := start(batchOf(4, 4))
	if done > before {
		t.Errorf("sending the second batch waited for %d steps of computing", done-before)
	}
	if done, _ := start(batchOf(12)); done < first || done >= second {
		t.Errorf("sending the third batch waited for %d steps of computing; the first has %d, and with the second there are %d", done, first, second)
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(own.Close(), n.model.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	f.checkFreed()
}

// TestWaitLeavesNothingBehind checks that the device is idle after each wait, and that no batch except the first pins
// host memory.
func TestWaitLeavesNothingBehind(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.BF16, noCublas)
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
