package cpu

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"seqembed/kernels"
)

// TestToBF16 compares with the definition: no bfloat16 is nearer, and of two
// as near the even one is taken. What is a bfloat16 already stays.
func TestToBF16(t *testing.T) {
	for b := range 1 << 16 {
		v := fromBF16(uint16(b))
		if got := toBF16(v); got != uint16(b) && !(v != v && got == uint16(b)|0x40) {
			t.Fatalf("%#04x, which is %v, becomes %#04x", b, v, got)
		}
		if upper := uint16(b) &^ 0x8000; upper >= 0x7f80 {
			continue // infinite, or not a number
		}
		low := math.Float32bits(v)
		for _, c := range []struct {
			rest uint32 // the lower half
			up   int    // how many steps the upper half takes
		}{{1, 0}, {0x7fff, 0}, {0x8000, b & 1}, {0x8001, 1}, {0xffff, 1}} {
			if got := toBF16(math.Float32frombits(low | c.rest)); got != uint16(b+c.up) {
				t.Fatalf("%#08x becomes %#04x", low|c.rest, got)
			}
		}
	}
	for _, bits := range []uint32{0x7f800001, 0xffffffff} {
		if v := fromBF16(toBF16(math.Float32frombits(bits))); v == v {
			t.Errorf("%#08x, which is not a number, becomes %v", bits, v)
		}
	}
}

// TestTileBF16: every kernel at every remainder, between guard pages, gives
// the bits of the kernel for the same values in float32.
func TestTileBF16(t *testing.T) {
	forced(t, func(t *testing.T, v *variant) {
		for rows := 1; rows <= 27; rows++ {
			for _, k := range []int{1, 2, 3, 4, 5, 7, 64, blockK} {
				for n := 1; n <= v.panels; n++ {
					c := tileCase{rows: rows, n: n, k: k, padA: rows % 3, padOut: k % 5, withBias: k%2 == 0, withAdd: rows%2 == 0}
					c.checkBF16(t, v)
				}
			}
		}
	})
}

func FuzzTileBF16(f *testing.F) {
	f.Add(uint8(12), uint8(2), uint16(383), uint8(0), uint8(0), uint8(3))
	f.Add(uint8(1), uint8(1), uint16(1), uint8(1), uint8(9), uint8(0))
	f.Fuzz(func(t *testing.T, rows, n uint8, k uint16, padA, padOut, with uint8) {
		for _, v := range variants() {
			c := tileCase{
				rows: 1 + int(rows)%60, n: 1 + int(n)%v.panels, k: 1 + int(k)%blockK, padA: int(padA), padOut: int(padOut),
				withBias: with&1 != 0, withAdd: with&2 != 0,
			}
			c.checkBF16(t, v)
		}
	})
}

func (c tileCase) checkBF16(t *testing.T, v *variant) {
	t.Helper()
	cols := c.n * panelCols
	lda, ldout := c.k+c.padA, cols+c.padOut
	for _, atEnd := range []bool{false, true} {
		take := func(n int, seed uint64) []float32 {
			values := guarded(t, n, atEnd)
			fill(values, seed)
			return values
		}
		a := take((c.rows-1)*lda+c.k, 1)
		wide := take(c.k*cols, 2)
		memory := guarded(t, len(wide)/2, atEnd)
		half := unsafe.Slice((*uint16)(unsafe.Pointer(&memory[0])), len(wide))
		for i, w := range wide {
			half[i] = toBF16(w)
			wide[i] = fromBF16(half[i])
		}
		var bias, add []float32
		if c.withBias {
			bias = take(cols, 4)
		}
		if c.withAdd {
			add = take((c.rows-1)*cols+cols, 5)
		}
		got, want := take((c.rows-1)*ldout+cols, 3), take((c.rows-1)*ldout+cols, 3)
		v.tileBF16(got, ldout, add, cols, bias, a, lda, c.rows, half, c.k, c.n)
		v.tile(want, ldout, add, cols, bias, a, lda, c.rows, wide, c.k, c.n)
		sameBits(t, fmt.Sprintf("%s %+v", v.name, c), got, want)
	}
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s: value %d of %d is %v and should be %v", what, i, len(want), got[i], w)
		}
	}
}

// roundedSource is a randomSource whose values are bfloat16 ones.
type roundedSource struct{ randomSource }

func (r roundedSource) ReadRows(dst []float32, first int) error {
	err := r.randomSource.ReadRows(dst, first)
	for i, v := range dst {
		dst[i] = fromBF16(toBF16(v))
	}
	return err
}

// TestBF16Weights: keeping projections as bfloat16 does what rounding them
// before they are loaded as float32 does, bit for bit: alone, stacked, fused
// and for every width of the last panel.
func TestBF16Weights(t *testing.T) {
	forced(t, func(t *testing.T, v *variant) {
		for _, rows := range []int{1, 13, 97} {
			for _, shape := range [][2]int{{16, 16}, {17, 33}, {64, 64}, {80, 385}, {110, 40}, {720, 320}, {48, 3072}} {
				for _, op := range []string{"linear", "stacked", "residual", "gelu", "geglu"} {
					t.Run(fmt.Sprintf("%s/%dx%dx%d", op, rows, shape[0], shape[1]), func(t *testing.T) {
						source := func(rows int) kernels.Source { return randomSource{[]int{rows, shape[1]}} }
						rounded := func(rows int) kernels.Source { return roundedSource{randomSource{[]int{rows, shape[1]}}} }
						half := projected(t, newBackend(Options{Threads: 2, BF16Weights: true}, v), op, rows, shape, source)
						wide := projected(t, newBackend(Options{Threads: 2}, v), op, rows, shape, rounded)
						sameBits(t, op, half, wide)
						if exact := projected(t, newBackend(Options{Threads: 2}, v), op, rows, shape, source); slices.Equal(exact, wide) {
							t.Error("rounding the weights changes nothing: nothing is compared")
						}
					})
				}
			}
		}
	})
}

// projected runs a Linear of that many rows to shape[0] columns, twice as many for "halves", with what op says, and
// closes the backend.
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
	parts := []kernels.Source{source(cols)}
	switch op {
	case "stacked":
		parts = []kernels.Source{source(cols - 7), source(7)}
	case "geglu", "halves":
		parts = []kernels.Source{source(cols), source(cols)}
	}
	l := kernels.Linear{W: load(kernels.Projection, parts...)}
	width, _ := l.W.Dims()
	l.Bias = load(kernels.Vector, randomSource{[]int{width}})
	var p kernels.Program
	input := func(cols int) kernels.Value {
		return p.Embed(kernels.Embed{Table: load(kernels.Lookup, randomSource{[]int{rows, cols}}), Scale: 1, Mask: kernels.NoMask})
	}
	in, add := input(shape[1]), kernels.None
	switch op {
	case "residual":
		add = input(width)
	case "gelu":
		l.Then = kernels.GELU
	case "geglu":
		l.Then = kernels.GEGLU
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

// TestBF16WeightsInMemory: projections take half the bytes and are named;
// tables and vectors stay as they are.
func TestBF16WeightsInMemory(t *testing.T) {
	b := Open(Options{Threads: 1, BF16Weights: true})
	defer b.Close()
	if name := b.Name(); !strings.HasSuffix(name, " bf16 weights") {
		t.Errorf("the backend's name %q does not tell it from one with other results", name)
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
		t.Errorf("a projection of %d values holds %d float32 and %d bfloat16", p.size(), len(p.at), len(p.half))
	}
	want := make([]float32, 33*20)
	fill(want, 0)
	sameBits(t, "lookup", load(kernels.Lookup, 33, 20).flat, want)
	sameBits(t, "vector", load(kernels.Vector, 33).flat, want[:33])
}
