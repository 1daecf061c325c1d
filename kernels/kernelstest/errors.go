package kernelstest

import (
	"errors"
	"testing"

	"seqembed/kernels"
)

// stickyErrors makes one mistake of each sort and wants it back from Wait,
// with the operation's name, and the stream in working order afterwards.
func stickyErrors(t *testing.T, backend kernels.Backend) {
	s, err := backend.NewStream(kernels.Limits{Tokens: 8, Sequences: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := &bench{t: t, backend: backend, Stream: s}
	batch := packed([]int{5, 3}, []int{0, 1})
	narrow, wide, pooled := s.Tokens(4, kernels.Operand), s.Tokens(12, kernels.Operand), s.Sequences(4)
	residual := s.Tokens(4, kernels.Residual)
	table := b.load(kernels.Lookup, matrix{[]int{vocabulary, 4}, b.draw(vocabulary*4, 1, 0)})
	short := b.load(kernels.Lookup, matrix{[]int{2, 4}, b.draw(2*4, 1, 0)})
	w, gain := b.projection(4, 4, 1), b.vector(4, 1, 0)

	mistakes := []struct {
		op   string
		make func()
	}{
		{"batch", func() { s.Begin(packed([]int{9}, []int{0})) }},
		{"batch", func() { s.Begin(packed([]int{1, 1, 1}, []int{0, 1, 2})) }},
		{"batch", func() { s.Begin(kernels.Batch{}) }},
		{"batch", func() { s.Begin(kernels.Batch{IDs: []int32{1, 1}, CuSeqlens: []int32{0, 2, 2}}) }},
		{"embed", func() { s.Embed(kernels.Embed{Out: wide, Table: table, Scale: 1, Mask: kernels.NoMask}) }},
		{"embed", func() { s.Embed(kernels.Embed{Out: narrow, Table: short, Scale: 1, Mask: kernels.NoMask}) }},
		{"embed", func() { s.Embed(kernels.Embed{Out: narrow, Table: w, Scale: 1, Mask: kernels.NoMask}) }},
		{"linear", func() { s.Linear(kernels.Linear{Out: wide, In: narrow, W: w}) }},
		{"linear", func() { s.Linear(kernels.Linear{Out: narrow, In: narrow, W: w}) }},
		{"linear", func() { s.Linear(kernels.Linear{Out: residual, In: narrow, W: table}) }},
		{"norm", func() { s.Norm(kernels.Norm{Out: narrow, In: residual, Gain: gain, Bias: gain}) }},
		{"norm", func() { s.Norm(kernels.Norm{Out: wide, In: residual, Gain: gain, Bias: gain, Eps: 1e-5}) }},
		{"linear", func() { s.Linear(kernels.Linear{Out: residual, In: narrow, W: w, Add: residual, Then: kernels.GELU}) }},
		{"linear", func() { s.Linear(kernels.Linear{Out: residual, In: narrow, W: w, Then: kernels.GEGLU}) }},
		{"linear", func() { s.Linear(kernels.Linear{Out: residual, In: narrow, W: w, Then: kernels.GEGLU + 1}) }},
		{"attention", func() { s.Attention(kernels.Attention{Out: narrow, QKV: wide, Heads: 3, Scale: 1}) }},
		{"attention", func() {
			s.Attention(kernels.Attention{Out: narrow, QKV: wide, Heads: 2, Scale: 1, Slopes: []float32{1}})
		}},
		{"attention", func() {
			rotary := &kernels.Rotary{QScale: 1, InvFreq: []float32{1}}
			s.Attention(kernels.Attention{Out: narrow, QKV: wide, Heads: 1, Scale: 1, Rotary: rotary})
		}},
		{"pool", func() { s.Pool(kernels.Pool{Out: pooled, In: residual, Skip: 2, Trim: 1}) }},
		{"pool", func() { s.Pool(kernels.Pool{Out: narrow, In: residual}) }},
		{"write", func() { s.Write(narrow, make([]float32, 3)) }},
		{"read", func() { s.Read(make([]float32, 3), narrow) }},
	}
	for _, m := range mistakes {
		s.Begin(batch)
		m.make()
		s.Linear(kernels.Linear{}) // a second mistake, which must not replace the first
		err := s.Wait()
		var op *kernels.OpError
		if !errors.As(err, &op) || op.Op != m.op {
			t.Errorf("a mistaken %s gives %v", m.op, err)
		}
	}
	s.Begin(batch)
	s.Embed(kernels.Embed{Out: narrow, Table: table, Scale: 1, Mask: kernels.NoMask})
	if err := s.Wait(); err != nil {
		t.Errorf("after errors were reported the stream still says %v", err)
	}

	if _, err := backend.Load(kernels.Projection, matrix{[]int{2, 4}, make([]float32, 8)}, matrix{[]int{2, 3}, make([]float32, 6)}); err == nil {
		t.Error("parts of 4 and of 3 columns were stacked")
	}
	if _, err := backend.Load(kernels.Vector, matrix{[]int{2, 4}, make([]float32, 8)}); err == nil {
		t.Error("a matrix was loaded as a vector")
	}
	broken := errors.New("cannot read")
	for _, role := range []kernels.Role{kernels.Projection, kernels.Lookup} {
		if _, err := backend.Load(role, unreadable{matrix{[]int{40, 4}, nil}, broken}); !errors.Is(err, broken) {
			t.Errorf("a source that cannot be read gives %v", err)
		}
	}
	if _, err := backend.NewStream(kernels.Limits{}); err == nil {
		t.Error("a stream without room was made")
	}
}

type unreadable struct {
	matrix
	err error
}

func (u unreadable) ReadRows([]float32, int) error { return u.err }

// copies writes rows and reads them back: a residual keeps every bit.
func copies(t *testing.T, backend kernels.Backend) {
	s, err := backend.NewStream(kernels.Limits{Tokens: 40, Sequences: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Begin(packed([]int{7, 11}, []int{0, 1}))
	for _, buf := range []kernels.Buffer{s.Tokens(5, kernels.Residual), s.Tokens(5, both), s.Sequences(9)} {
		rows := 18
		if buf.PerSequence() {
			rows = 2
		}
		want := normal(uint64(buf.Cols()), rows*buf.Cols())
		got := make([]float32, len(want))
		s.Write(buf, want)
		s.Read(got, buf)
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		if i := differs(want, got); i >= 0 {
			t.Errorf("value %d was written as %v and read as %v", i, want[i], got[i])
		}
	}
}
