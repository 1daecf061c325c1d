package cpu

import (
	"errors"
	"math"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
)

// names lists the names of all implementations of the inner loops, whether or not this machine can run them.
var names = []string{"portable", "avx2", "avx512", "neon"}

// withEachVariant runs a test with each implementation of the inner loops, as a subtest. It skips the subtest if this
// machine or build does not support the implementation.
func withEachVariant(t *testing.T, test func(t *testing.T, v *variant)) {
	here := map[string]*variant{}
	for _, v := range variants() {
		here[v.name] = v
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if here[name] == nil {
				t.Skipf("this machine or build does not support %s", name)
			}
			test(t, here[name])
		})
	}
}

// TestConformance runs the conformance suite in float32 with every implementation of the inner loops that this machine
// supports. If there is an implementation in assembly, the test skips the one in plain Go, which takes as long as all
// others together. A build with the tag noasm (make noasm) tests plain Go. Under the race detector only the fastest
// implementation runs, because all have the same goroutines.
func TestConformance(t *testing.T) {
	known := new(kernelstest.Known)
	withEachVariant(t, func(t *testing.T, v *variant) {
		if v.name == "portable" && best().name != "portable" {
			t.Skip("this machine computes with assembly; make noasm tests the portable variant")
		}
		if raceDetector && v.name != best().name {
			t.Skip("another variant has the same goroutines")
		}
		t.Parallel() // the reference uses one core only, so the variants run at the same time
		kernelstest.Run(t, kernels.FP32, known, func() kernels.Backend { return newBackend(3, v, float32s) })
	})
}

// TestAllocations checks that a batch allocates nothing, with one thread and with several. In short mode it tests only
// the implementation of the inner loops that a new backend uses on this machine.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	withEachVariant(t, func(t *testing.T, v *variant) {
		if testing.Short() && v.name != best().name {
			t.Skip("another variant")
		}
		for _, threads := range []int{1, 3} {
			b := newBackend(threads, v, float32s)
			kernelstest.Allocations(t, b, kernels.FP32)
			b.Close()
		}
	})
}

// TestOutOfMemory checks that Compile returns an error for a program that needs more than the available memory. Without
// the error, the system would kill the process when the process uses the memory.
func TestOutOfMemory(t *testing.T) {
	free, _ := Available()
	if free == math.MaxInt64 {
		t.Skip("the available memory of this system is unknown")
	}
	b := New(1)
	defer b.Close()
	const tokens = 1 << 24
	m := b.NewModel()
	defer m.Close()
	table, err := m.Load(kernels.Lookup, randomSource{[]int{1, int(free/4/tokens) + 1}})
	if err != nil {
		t.Fatal(err)
	}
	var p kernels.Program
	p.Output(p.Embed(kernels.Embed{Table: table, Scale: 1, Mask: kernels.NoMask}))
	if _, err := b.Compile(&p, kernels.Limits{Tokens: tokens, Sequences: 1}); !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("a program that needs all available memory compiles: %v", err)
	}
}

// TestWideHeads checks that Compile refuses heads that are too wide, and that the widest heads run.
func TestWideHeads(t *testing.T) {
	b := New(1)
	defer b.Close()
	m := b.NewModel()
	defer m.Close()
	for d, want := range map[int]error{maxHead: nil, maxHead + 1: kernels.ErrUnsupported} {
		table, err := m.Load(kernels.Lookup, randomSource{[]int{4, 3 * d}})
		if err != nil {
			t.Fatal(err)
		}
		var p kernels.Program
		p.Output(p.Attention(p.Embed(kernels.Embed{Table: table, Scale: 1, Mask: kernels.NoMask}), kernels.Attention{Heads: 1, Scale: 1}))
		const tokens = 50
		compiled, err := b.Compile(&p, kernels.Limits{Tokens: tokens, Sequences: 1})
		if !errors.Is(err, want) {
			t.Errorf("a head of %d columns: %v, want %v", d, err, want)
		}
		if err != nil {
			continue
		}
		var batch kernels.Batch
		batch.Append(make([]int32, tokens))
		if err := compiled.Start(batch, [][]float32{make([]float32, tokens*d)})(); err != nil {
			t.Errorf("a head of %d columns: %v", d, err)
		}
		compiled.Close()
	}
}
