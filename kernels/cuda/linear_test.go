package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// TestProductsOfEveryKind runs products with everything that may follow them, to buffers of every kind that a later
// product or sum reads, and compares with the reference. The bound is a few roundings of bfloat16.
func TestProductsOfEveryKind(t *testing.T) {
	const both = kernels.Residual | kernels.Operand
	batch := batchOf(40, 3)
	rows := len(batch.IDs)
	run := func(b kernels.Backend, then kernels.Activation, add bool, k kernels.Kind) []float32 {
		s, err := b.NewStream(kernels.Limits{Tokens: rows, Sequences: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		load := func(role kernels.Role, seed uint64, shape ...int) kernels.Weight {
			w, err := b.Load(role, randomTensor(seed, 0.2, shape...))
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		cols := 2 * testWidth / then.Cols(2)
		in, x, y := s.Tokens(testWidth, kernels.Operand), s.Tokens(testWidth, k), s.Tokens(testWidth, both)
		residual := s.Tokens(testWidth, kernels.Residual)
		s.Begin(batch)
		s.Write(in, randomTensor(4, 1, rows*testWidth).values)
		s.Write(residual, randomTensor(5, 1, rows*testWidth).values)
		product := kernels.Linear{Out: x, In: in, W: load(kernels.Projection, 1, cols, testWidth), Bias: load(kernels.Vector, 3, cols), Then: then}
		if add {
			product.Add = residual
		}
		s.Linear(product)
		next := kernels.Linear{Out: y, In: in, W: load(kernels.Projection, 2, testWidth, testWidth)}
		if k&kernels.Operand != 0 {
			next.In = x
		}
		if k&kernels.Residual != 0 {
			next.Add = x
		}
		s.Linear(next)
		got := make([]float32, rows*testWidth)
		s.Read(got, y)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, k := range []kernels.Kind{kernels.Residual, kernels.Operand, both} {
		for _, c := range []struct {
			then kernels.Activation
			add  bool
		}{{kernels.Identity, false}, {kernels.Identity, true}, {kernels.GELU, false}, {kernels.GEGLU, false}} {
			want := run(ref.New(), c.then, c.add, k)
			for _, own := range []bool{true, false} {
				f := newFake(t)
				f.eagerness = rand.New(rand.NewPCG(7, 7))
				find := noCublas
				if !own {
					find = newFakeCublas(f).find
				}
				b := openFake(t, f, BF16, find)
				if e := distance(run(b, c.then, c.add, k), want); !(e < 2e-2) {
					t.Errorf("%s, sum %t, kind %d, own products %t: errs by %g", c.then, c.add, k, own, e)
				}
				b.Close()
				f.settled()
			}
		}
	}
}

// TestWaitLeavesNothingBehind runs batches: after each Wait the device has
// nothing left to do, and after the first nothing more is pinned.
func TestWaitLeavesNothingBehind(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, BF16, noCublas)
	defer b.Close()
	s, err := b.NewStream(kernels.Limits{Tokens: 50, Sequences: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x, pooled := s.Tokens(16, kernels.Residual), s.Sequences(16)
	gain, err := b.Load(kernels.Vector, randomTensor(1, 1, 16))
	if err != nil {
		t.Fatal(err)
	}
	norm := kernels.Norm{Out: x, In: x, Gain: gain, Bias: gain, Eps: 1}
	pinned := 0
	for i, lengths := range [][]int{{50}, {3, 9}, {7, 20, 20}, {1}} {
		s.Begin(batchOf(lengths...))
		s.Norm(norm)
		s.Pool(kernels.Pool{Out: pooled, In: x})
		s.Read(make([]float32, len(lengths)*16), pooled)
		s.Norm(norm)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		for _, q := range f.streams {
			if q.done != len(q.work) {
				t.Errorf("batch %d: Wait returns with %d of %d tasks done", i, q.done, len(q.work))
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

// TestBinaryCarriesEveryKernel looks for the kernels of the table among those
// that are compiled in, and wants drivers of branch 550 to read them.
func TestBinaryCarriesEveryKernel(t *testing.T) {
	images, err := embeddedImages()
	if err != nil {
		t.Fatal(err)
	}
	var carried []string
	for _, i := range images {
		carried = append(carried, i.kernels...)
		if text, err := i.text(); err != nil || text[len(text)-1] != 0 {
			t.Errorf("%s does not end in a zero: %v", i.name, err)
		}
	}
	for name := range readKernelTable(t) {
		if !slices.Contains(carried, name) {
			t.Errorf("no module has %s", name)
		}
	}
	if err := checkDriver(12040, images); err != nil {
		t.Error(err)
	}
}
