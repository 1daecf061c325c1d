package cpu

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"seqembed/internal/half"
	"seqembed/kernels"
)

// TestWiden checks that the conversion of bfloat16 to float32 gives the same bits as package half, for 1 to 70 rows of
// 16 values. On Linux, inaccessible pages before or after the values show that the conversion accesses no other memory.
func TestWiden(t *testing.T) {
	withEachVariant(t, func(t *testing.T, v *variant) {
		for rows := 1; rows <= 70; rows++ {
			for _, atEnd := range []bool{false, true} {
				n := rows * panelCols
				got, memory := guarded(t, n, atEnd), guarded(t, n/2, atEnd)
				bf16, want := unsafe.Slice((*uint16)(unsafe.Pointer(&memory[0])), n), make([]float32, n)
				for i := range bf16 {
					bf16[i] = uint16(i*0x9e37 + rows)
					want[i] = half.FromBF16(bf16[i])
				}
				v.widen(got, bf16)
				sameBits(t, v.name, got, want)
			}
		}
	})
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s: value %d of %d is %v, want %v", what, i, len(want), got[i], w)
		}
	}
}

// roundedSource is a randomSource whose values are rounded to bfloat16.
type roundedSource struct{ randomSource }

func (r roundedSource) ReadRows(dst []float32, first int) error {
	err := r.randomSource.ReadRows(dst, first)
	for i, v := range dst {
		dst[i] = half.FromBF16(half.ToBF16(v))
	}
	return err
}

// TestBF16Weights checks that a Linear whose matrix is stored as bfloat16 gives the same bits as a Linear with a
// float32 matrix whose values were rounded to bfloat16 before loading. The cases have a single matrix, stacked parts, a
// residual or an activation, and a last panel that is full or only partly filled.
func TestBF16Weights(t *testing.T) {
	ops := []string{"linear", "stacked", "residual"}
	for _, then := range kernels.Activations[1:] {
		ops = append(ops, then.String())
	}
	shapes := [][2]int{{16, 16}, {17, 33}, {80, 385}, {110, 40}}
	if !testing.Short() {
		shapes = append(shapes, [2]int{64, 64}, [2]int{720, 320}, [2]int{48, 3072})
	}
	withEachVariant(t, func(t *testing.T, v *variant) {
		for _, rows := range []int{1, 13, 97} {
			for _, shape := range shapes {
				for _, op := range ops {
					t.Run(fmt.Sprintf("%s/%dx%dx%d", op, rows, shape[0], shape[1]), func(t *testing.T) {
						source := func(rows int) kernels.Source { return randomSource{[]int{rows, shape[1]}} }
						rounded := func(rows int) kernels.Source { return roundedSource{randomSource{[]int{rows, shape[1]}}} }
						got := projected(t, newBackend(2, v, bf16Weights), op, rows, shape, source)
						want := projected(t, newBackend(2, v, float32s), op, rows, shape, rounded)
						sameBits(t, op, got, want)
						if exact := projected(t, newBackend(2, v, float32s), op, rows, shape, source); slices.Equal(exact, want) {
							t.Error("rounding does not change the result, so the comparison proves nothing")
						}
					})
				}
			}
		}
	})
}

// projected runs one Linear on random rows and closes the backend. op selects the parts of the matrix, the activation
// and the residual of the Linear. The result has shape[0] columns, or twice as many if op is "halves".
func projected(t *testing.T, b *Backend, op string, rows int, shape [2]int, source func(rows int) kernels.Source) []float32 {
	t.Helper()
	defer b.Close()
	m := b.NewModel()
	defer m.Close()
	load := func(role kernels.Role, parts ...kernels.Source) kernels.Weight {
		w, err := m.Load(role, parts...)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	cols := shape[0]
	var l kernels.Linear
	for _, then := range kernels.Activations {
		if then.String() == op {
			l.Then = then
		}
	}
	parts := []kernels.Source{source(cols)}
	switch {
	case op == "stacked":
		parts = []kernels.Source{source(cols - 7), source(7)}
	case l.Then.Gates(), op == "halves":
		parts = []kernels.Source{source(cols), source(cols)}
	}
	l.W = load(kernels.Projection, parts...)
	width, _ := l.W.Dims()
	l.Bias = load(kernels.Vector, randomSource{[]int{width}})
	var p kernels.Program
	input := func(cols int) kernels.Value {
		return p.Embed(kernels.Embed{Table: load(kernels.Lookup, randomSource{[]int{rows, cols}}), Scale: 1, Mask: kernels.NoMask})
	}
	in, add := input(shape[1]), kernels.None
	if op == "residual" {
		add = input(width)
	}
	p.Output(p.Linear(in, l, add))
	r, err := b.Compile(&p, kernels.Limits{Tokens: rows, Sequences: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var batch kernels.Batch
	ids := make([]int32, rows)
	for i := range ids {
		ids[i] = int32(i)
	}
	batch.Append(ids)
	values := make([]float32, rows*l.Then.Cols(width))
	if err := r.Start(batch, [][]float32{values})(); err != nil {
		t.Fatal(err)
	}
	return values
}

// TestBF16WeightsInMemory checks that the matrix of a Linear takes half the bytes of float32, that the name of the
// backend mentions bf16 weights, and that lookup tables and vectors stay float32.
func TestBF16WeightsInMemory(t *testing.T) {
	b := newBackend(1, best(), bf16Weights)
	defer b.Close()
	if name := b.Name(); !strings.HasSuffix(name, " bf16 weights") {
		t.Errorf("the name %q of the backend does not mention bf16 weights", name)
	}
	m := b.NewModel()
	defer m.Close()
	load := func(role kernels.Role, shape ...int) *weight {
		w, err := m.Load(role, randomSource{shape})
		if err != nil {
			t.Fatal(err)
		}
		return w.(*weight)
	}
	if p := load(kernels.Projection, 1000, 900).packed; p.at != nil || len(p.half) != p.size() || uintptr(unsafe.Pointer(&p.half[0]))%line != 0 {
		t.Errorf("a projection of %d values is stored as %d float32 and %d bfloat16 values", p.size(), len(p.at), len(p.half))
	}
	want := make([]float32, 33*20)
	fill(want, 0)
	sameBits(t, "lookup", load(kernels.Lookup, 33, 20).flat, want)
	sameBits(t, "vector", load(kernels.Vector, 33).flat, want[:33])
}
