package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/ref"
)

// TestProductsThatAreHeldBack runs what follows a product in ways that must
// not be fused, or must fuse to the right buffer, and compares with the
// reference. The bound is a few roundings of bfloat16.
func TestProductsThatAreHeldBack(t *testing.T) {
	const both = kernels.Residual | kernels.Operand
	batch := batchOf(40, 3)
	rows := len(batch.IDs)
	type fixture struct {
		kernels.Stream
		square, qkv, bias kernels.Weight
		in, x, y, context kernels.Buffer
		wide, add         kernels.Buffer
	}
	cases := map[string]func(f *fixture) kernels.Buffer{
		"activation of a sum": func(f *fixture) kernels.Buffer {
			f.Linear(kernels.Linear{Out: f.x, In: f.in, W: f.square, Add: f.add})
			f.Activate(kernels.Activate{X: f.x})
			return f.x
		},
		"activation of another buffer": func(f *fixture) kernels.Buffer {
			f.Linear(kernels.Linear{Out: f.x, In: f.in, W: f.square, Bias: f.bias})
			f.Activate(kernels.Activate{X: f.in})
			f.Linear(kernels.Linear{Out: f.y, In: f.in, W: f.square, Add: f.x})
			return f.y
		},
		"both kinds": func(f *fixture) kernels.Buffer {
			f.Linear(kernels.Linear{Out: f.x, In: f.in, W: f.square, Add: f.add})
			f.Linear(kernels.Linear{Out: f.y, In: f.x, W: f.square, Bias: f.bias})
			return f.y
		},
		"activation of both kinds": func(f *fixture) kernels.Buffer {
			f.Linear(kernels.Linear{Out: f.x, In: f.in, W: f.square, Bias: f.bias})
			f.Activate(kernels.Activate{X: f.x})
			f.Linear(kernels.Linear{Out: f.y, In: f.x, W: f.square, Add: f.x})
			return f.y
		},
		"attention": func(f *fixture) kernels.Buffer {
			f.Linear(kernels.Linear{Out: f.wide, In: f.in, W: f.qkv})
			f.Attention(kernels.Attention{Out: f.context, QKV: f.wide, Heads: 2, Scale: 0.25})
			return f.context
		},
		"gate over the product's input": func(f *fixture) kernels.Buffer {
			f.Linear(kernels.Linear{Out: f.x, In: f.in, W: f.square})
			out := f.Reuse(f.in, testWidth/2)
			f.Gate(kernels.Gate{Out: out, In: f.x})
			return out
		},
	}
	run := func(b kernels.Backend, c func(f *fixture) kernels.Buffer) []float32 {
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
		f := &fixture{Stream: s, square: load(kernels.Projection, 1, testWidth, testWidth), qkv: load(kernels.Projection, 2, 3*testWidth, testWidth),
			bias: load(kernels.Vector, 3, testWidth),
			in:   s.Tokens(testWidth, both), x: s.Tokens(testWidth, both), y: s.Tokens(testWidth, kernels.Residual),
			wide: s.Tokens(3*testWidth, kernels.Operand), context: s.Tokens(testWidth, kernels.Operand), add: s.Tokens(testWidth, kernels.Residual)}
		s.Begin(batch)
		s.Write(f.in, randomTensor(4, 1, rows*testWidth).values)
		s.Write(f.add, randomTensor(5, 1, rows*testWidth).values)
		out := c(f)
		got := make([]float32, rows*out.Cols())
		s.Read(got, out)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for name, c := range cases {
		want := run(ref.New(), c)
		for _, own := range []bool{true, false} {
			f := newFake(t)
			f.eagerness = rand.New(rand.NewPCG(7, 7))
			find := noCublas
			if !own {
				find = newFakeCublas(f).find
			}
			b := openFake(t, f, BF16, find)
			if e := distance(run(b, c), want); !(e < 2e-2) {
				t.Errorf("%s, own products %t: errs by %g", name, own, e)
			}
			b.Close()
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
	pinned := 0
	for i, lengths := range [][]int{{50}, {3, 9}, {7, 20, 20}, {1}} {
		s.Begin(batchOf(lengths...))
		s.Activate(kernels.Activate{X: x})
		s.Pool(kernels.Pool{Out: pooled, In: x})
		s.Read(make([]float32, len(lengths)*16), pooled)
		s.Activate(kernels.Activate{X: x})
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
