package kernelstest

import (
	"errors"
	"fmt"
	"testing"

	"seqembed/kernels"
)

// mistakes checks that Compile refuses programs with a mistake, and that a runner refuses batches with a mistake. For a
// wrong operation or a wrong batch the error must be an *OpError that names the operation or the batch. The batch after
// a refused batch must succeed.
func mistakes(t *testing.T, backend kernels.Backend) {
	limits := kernels.Limits{Tokens: 8, Sequences: 2}
	bench := func() *Bench {
		return &Bench{Program: new(kernels.Program), t: t, model: backend.NewModel(), lens: []int{5, 3}, tags: []int{0, 1}, seed: 1}
	}
	for i, m := range []struct {
		op    string
		build func(b *Bench, x kernels.Value) kernels.Value // x has 12 columns
	}{
		{"embed", func(b *Bench, _ kernels.Value) kernels.Value {
			return b.Embed(kernels.Embed{Table: b.Projection(12, 4, 1)})
		}},
		{"embed", func(b *Bench, _ kernels.Value) kernels.Value {
			return b.Embed(kernels.Embed{Table: b.Table(12), Type: b.Vector(4, 1, 0)})
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value { return b.Linear(x, kernels.Linear{}, kernels.None) }},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(x, b.Product(4, 4, kernels.Identity), kernels.None)
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(x, kernels.Linear{W: b.Table(12)}, kernels.None)
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(x, kernels.Linear{W: b.Projection(4, 12, 1), Bias: b.Vector(12, 1, 0)}, kernels.None)
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(x, b.Product(4, 12, kernels.Identity), x)
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value { return b.Linear(x, b.Product(12, 12, kernels.GELU), x) }},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(x, b.Product(4, 12, unknown), kernels.None)
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(x, kernels.Linear{W: b.Projection(5, 12, 1), Then: kernels.GEGLU}, kernels.None)
		}},
		{"linear", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Linear(b.Pool(x, kernels.Range{}), b.Product(4, 12, kernels.Identity), kernels.None)
		}},
		{"norm", func(b *Bench, x kernels.Value) kernels.Value { return b.Norm(x, b.Normalize(12, 0)) }},
		{"norm", func(b *Bench, x kernels.Value) kernels.Value { return b.Norm(x, b.Normalize(4, 1e-5)) }},
		{"norm", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Norm(b.Pool(x, kernels.Range{}), b.Normalize(12, 1e-5))
		}},
		{"attention", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Attention(x, kernels.Attention{Heads: 3, Scale: 1})
		}},
		{"attention", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Attention(x, kernels.Attention{Heads: 2})
		}},
		{"attention", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Attention(x, kernels.Attention{Heads: 2, Scale: 1, Slopes: []float32{1}})
		}},
		{"attention", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Attention(x, kernels.Attention{Heads: 1, Scale: 1, Rotary: &kernels.Rotary{QScale: 1, InvFreq: []float32{1}}})
		}},
		{"pool", func(b *Bench, x kernels.Value) kernels.Value { return b.Pool(x, kernels.Range{Skip: -1}) }},
		{"pool", func(b *Bench, x kernels.Value) kernels.Value {
			return b.Pool(b.Pool(x, kernels.Range{}), kernels.Range{})
		}},
		{"output", func(b *Bench, x kernels.Value) kernels.Value { return kernels.None }},
	} {
		t.Run(fmt.Sprintf("%d %s", i, m.op), func(t *testing.T) {
			b := bench()
			defer b.model.Close()
			b.Output(m.build(b, b.Input(12)))
			b.Output(b.Norm(kernels.None, kernels.Norm{})) // a second mistake, which must not replace the first
			_, err := backend.Compile(b.Program, limits)
			var op *kernels.OpError
			if !errors.As(err, &op) || op.Op != m.op {
				t.Errorf("a mistake in %s returns %v", m.op, err)
			}
		})
	}
	if _, err := backend.Compile(new(kernels.Program), limits); err == nil {
		t.Error("a program without an output compiles")
	}

	b := bench()
	defer b.model.Close()
	b.Output(b.Pool(b.Input(16), kernels.Range{Skip: 1, Trim: 1}))
	if _, err := backend.Compile(b.Program, kernels.Limits{}); err == nil {
		t.Error("a program compiles with empty limits")
	}
	r, err := backend.Compile(b.Program, limits)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	batch := func(ids []int32, cu ...int32) kernels.Batch { return kernels.Batch{IDs: ids, CuSeqlens: cu} }
	good := batch([]int32{0, 1, 2, 3, 4, 5}, 0, 3, 6)
	room := func(n int) [][]float32 { return [][]float32{make([]float32, n)} }
	for i, m := range []struct {
		op    string
		batch kernels.Batch
		dst   [][]float32
	}{
		{"batch", kernels.Batch{}, room(0)},
		{"batch", batch(make([]int32, 9), 0, 9), room(16)},
		{"batch", batch(make([]int32, 8), 0, 3, 6, 8), room(48)},
		{"batch", batch([]int32{1, 1}, 0, 2, 2), room(32)},
		{"batch", batch([]int32{1, 1}, 0, 1), room(16)},
		{"batch", batch([]int32{1, 8, 1}, 0, 3), room(16)},
		{"batch", batch([]int32{1, -1, 1}, 0, 3), room(16)},
		{"pool", batch([]int32{0, 1, 2, 3, 4}, 0, 3, 5), room(32)},
		{"batch", good, room(31)},
		{"batch", good, nil},
	} {
		err := r.Start(m.batch, m.dst)()
		var op *kernels.OpError
		if !errors.As(err, &op) || op.Op != m.op {
			t.Errorf("mistake %d in a batch returns %v", i, err)
		}
		if err := r.Start(good, room(32))(); err != nil {
			t.Errorf("the batch after mistake %d returns %v", i, err)
		}
	}
}

// unknown is not a valid activation.
const unknown kernels.Activation = 255

// unsupported checks that Compile refuses each of the activations in lacks with kernels.ErrUnsupported. It changes the
// activation after the program is built, because Program.Linear does not accept the activation unknown.
func unsupported(t *testing.T, backend kernels.Backend, lacks []kernels.Activation) {
	for _, then := range lacks {
		b := &Bench{Program: new(kernels.Program), t: t, model: backend.NewModel(), lens: []int{5, 3}, tags: []int{0, 1}, seed: 1}
		b.Output(b.Linear(b.Input(12), b.Product(4, 12, kernels.Identity), kernels.None))
		product := &b.Ops()[1]
		o := product.Do.(kernels.Linear)
		o.Then = then
		product.Do = o
		var op *kernels.OpError
		_, err := backend.Compile(b.Program, kernels.Limits{Tokens: 8, Sequences: 2})
		if !errors.As(err, &op) || op.Op != "linear" || !errors.Is(err, kernels.ErrUnsupported) {
			t.Errorf("Compile of a linear with %s returns %v, want an *OpError of linear that wraps kernels.ErrUnsupported", then, err)
		}
		b.model.Close()
	}
}

// weights checks that Load refuses parts that cannot be stacked, and that it returns the error of a source.
func weights(t *testing.T, backend kernels.Backend) {
	m := backend.NewModel()
	defer m.Close()
	if _, err := m.Load(kernels.Projection, Tensor{[]int{2, 4}, make([]float32, 8)}, Tensor{[]int{2, 3}, make([]float32, 6)}); err == nil {
		t.Error("parts of 4 and of 3 columns are stacked")
	}
	if _, err := m.Load(kernels.Vector, Tensor{[]int{2, 4}, make([]float32, 8)}); err == nil {
		t.Error("a matrix is loaded as a vector")
	}
	broken := errors.New("cannot read")
	for _, role := range []kernels.Role{kernels.Projection, kernels.Lookup} {
		if _, err := m.Load(role, unreadable{Tensor{[]int{40, 4}, nil}, broken}); !errors.Is(err, broken) {
			t.Errorf("Load returns %v for a source that fails", err)
		}
	}
}

type unreadable struct {
	Tensor
	err error
}

func (u unreadable) ReadRows([]float32, int) error { return u.err }

// starts checks that a runner may start several batches before the first is waited for. Each batch must have the same
// results as when it runs alone, and a batch that fails must not affect the others.
func starts(t *testing.T, backend kernels.Backend) {
	b := &Bench{Program: new(kernels.Program), t: t, model: backend.NewModel(), operands: kernels.BF16, seed: 1}
	defer b.model.Close()
	x := b.Embed(kernels.Embed{Table: b.Table(48), Scale: 1, Mask: kernels.NoMask})
	y := b.Norm(b.Linear(x, b.Product(48, 48, kernels.Identity), x), b.Normalize(48, 1e-5))
	b.Output(y)
	b.Output(b.Pool(b.Attention(y, kernels.Attention{Heads: 1, Scale: 0.25}), kernels.Range{}))
	r, err := backend.Compile(b.Program, kernels.Limits{Tokens: 130, Sequences: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var batches []kernels.Batch
	for i, lens := range [][]int{{9, 2}, {1, 50, 3}, {130}, {4, 4}} {
		batches = append(batches, Case{Tokens: true}.batch(lens, []int{i, i + 1, i + 2}))
	}
	room := func(b kernels.Batch) [][]float32 {
		return [][]float32{make([]float32, 48*len(b.IDs)), make([]float32, 16*b.Sequences())}
	}
	var alone, together [][][]float32
	for _, b := range batches {
		dst := room(b)
		if err := r.Start(b, dst)(); err != nil {
			t.Fatal(err)
		}
		alone = append(alone, dst)
	}
	var waits []func() error
	for _, b := range batches {
		dst := room(b)
		together, waits = append(together, dst), append(waits, r.Start(b, dst), r.Start(kernels.Batch{}, nil))
	}
	for i, wait := range waits {
		if err := wait(); (err != nil) != (i%2 == 1) {
			t.Errorf("wait %d returns %v", i, err)
		}
	}
	for i := range alone {
		for k := range alone[i] {
			if at := Differs(alone[i][k], together[i][k]); at >= 0 {
				t.Errorf("batch %d, result %d: value %d depends on the other batches in flight", i, k, at)
			}
		}
	}
}
