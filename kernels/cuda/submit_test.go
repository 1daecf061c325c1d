package cuda

import (
	"errors"
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

// What could not be sent is sent again by the next batch: slopes that never
// arrived must not be taken for those that did.
func TestConstantsAfterFailure(t *testing.T) {
	for _, call := range []string{"cuMemAlloc", "upload"} {
		f := newFake(t)
		b := openFake(t, f, FP32, noCublas)
		s, err := b.NewStream(kernels.Limits{Tokens: 12, Sequences: 3})
		if err != nil {
			t.Fatal(err)
		}
		qkv, out := s.Tokens(96, kernels.Operand), s.Tokens(32, kernels.Operand)
		batch := batchOf(9)
		attend := func(slopes []float32, failing bool) ([]float32, error) {
			got := make([]float32, 9*32)
			s.Begin(batch)
			s.Write(qkv, randomTensor(3, 1, 9, 96).values)
			if failing {
				if err := b.device.thread.call(func() error { return nil }); err != nil { // what was sent has run
					t.Fatal(err)
				}
				f.mu.Lock()
				f.fails[call] = codeOutOfMemory
				f.mu.Unlock()
			}
			s.Attention(kernels.Attention{Out: out, QKV: qkv, Heads: 2, Scale: 1, Slopes: slopes})
			if failing {
				_ = b.device.thread.call(func() error { return nil })
				f.mu.Lock()
				delete(f.fails, call)
				f.mu.Unlock()
			}
			s.Read(got, out)
			return got, s.Wait()
		}
		want, err := attend([]float32{0.5, 0.25}, false)
		if err != nil {
			t.Fatal(err)
		}
		flat, err := attend(nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Equal(want, flat) {
			t.Fatal("the slopes make no difference")
		}
		// Others, of the same values in another order, are new to the stream.
		s.(*stream).constants = map[string]devicePtr{}
		if _, err := attend([]float32{0.5, 0.25}, true); !errors.Is(err, kernels.ErrOutOfMemory) {
			t.Errorf("%s fails: %v", call, err)
		}
		if again, err := attend([]float32{0.5, 0.25}, false); err != nil || !slices.Equal(again, want) {
			t.Errorf("after a failure of %s the slopes are others: %v", call, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Memory of the host is no reason to try smaller batches.
func TestPinnedMemoryThatIsNotThere(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, FP32, noCublas)
	defer b.Close()
	f.mu.Lock()
	f.fails["cuMemAllocHost"] = codeOutOfMemory
	f.mu.Unlock()
	s, err := b.NewStream(kernels.Limits{Tokens: 12, Sequences: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Begin(batchOf(9))
	if err := s.Wait(); err == nil || errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("no pinned memory: %v", err)
	}
}

// TestBatchIsSentWhileAnotherComputes: what the host sends for a batch waits
// for no other but the one before last, whose memory it takes.
func TestBatchIsSentWhileAnotherComputes(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, BF16, noCublas)
	s, err := b.NewStream(kernels.Limits{Tokens: 12, Sequences: 3})
	if err != nil {
		t.Fatal(err)
	}
	const cols = 32
	table, err := b.Load(kernels.Lookup, randomTensor(1, 1, 11, cols))
	if err != nil {
		t.Fatal(err)
	}
	x, pooled := s.Tokens(cols, kernels.Residual), s.Sequences(cols)
	own := s.(*stream)
	var waits []func() error
	// submit gives how far the compute stream has come when all is sent, and
	// how much there is on it.
	submit := func(b kernels.Batch) (done, all int) {
		means := make([]float32, b.Sequences()*cols)
		s.Begin(b)
		s.Embed(kernels.Embed{Out: x, Table: table, Scale: 1, Mask: kernels.NoMask})
		s.Pool(kernels.Pool{Out: pooled, In: x})
		s.Read(means, pooled)
		waits = append(waits, s.Submit())
		err := own.device.thread.call(func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			loads, compute := f.streams[own.loads], f.streams[own.compute]
			f.run(fakeMark{loads, len(loads.work)})
			done, all = compute.done, len(compute.work)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return done, all
	}
	_, first := submit(batchOf(9, 2))
	done, second := submit(batchOf(4, 4))
	if done != 0 {
		t.Errorf("sending the second batch waited for %d steps of computing", done)
	}
	if done, _ := submit(batchOf(12)); done < first || done >= second {
		t.Errorf("sending the third batch waited for %d steps of computing; the first has %d, and with the second there are %d", done, first, second)
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	f.settled()
}
