package cpu

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"seqembed/internal/half"
	"seqembed/kernels"
	"seqembed/kernels/kernelstest"
)

// fastPairs returns the part of the best variant that computes with pairs of bfloat16. It skips the test if that part
// does not use instructions for bfloat16, because this machine lacks them or this build has no assembly.
func fastPairs(t testing.TB) pairVariant {
	p := best().pairs
	if !p.fast {
		t.Skip("this machine or build does not multiply bfloat16")
	}
	return p
}

// formOf returns functions in plain Go that compute the same bits as the functions that fastPairs returns.
func formOf() pairVariant {
	if runtime.GOARCH == "arm64" {
		return bfmmlaForm()
	}
	return portable().pairs
}

// special are the bits of float32 values at the limits of bfloat16: halfway cases, denormal numbers, infinities and
// NaN.
var special = []uint32{0, 1 << 31, 1, 0x7fffff, 0x800000, 0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0x7f7fffff, 0x7f7f8000,
	0x7f7f7fff, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff, 0x80008000, 0x00008000}

// TestNarrow checks that the assembly that rounds to bfloat16 gives the same bits as plain Go, or NaN if plain Go gives
// NaN, for 1 to 70 values and also in place. On Linux, inaccessible pages before or after the values show that the
// assembly accesses no other memory.
func TestNarrow(t *testing.T) {
	fast, form := fastPairs(t), formOf()
	for n := 1; n <= 70; n++ {
		for _, atEnd := range []bool{false, true} {
			in := guarded(t, n, atEnd)
			fill(in, uint64(n))
			for i, bits := range special {
				if i < n {
					in[n-1-i] = math.Float32frombits(bits)
				}
			}
			want, got := make([]uint16, 2*pairs(n)), halves(guarded(t, pairs(n), atEnd))
			form.narrow(want, in)
			fast.narrow(got, in)
			for i := range want {
				if nan := i < n && in[i] != in[i]; got[i] != want[i] && !(nan && half.FromBF16(got[i]) != half.FromBF16(got[i])) {
					t.Fatalf("value %d of %d, %v, is rounded to %#x, want %#x", i, n, in[i], got[i], want[i])
				}
			}
			if n > 1 {
				same := halves(in)[:2*pairs(n)]
				fast.narrow(same, in)
				if !slices.Equal(same, got) {
					t.Fatalf("%d values become others in place", n)
				}
			}
		}
	}
}

// TestTilePairs checks that a matrix product of bfloat16 pairs has the same bits in assembly and in plain Go.
func TestTilePairs(t *testing.T) {
	fast, form := fastPairs(t), formOf()
	rng := rand.New(rand.NewPCG(1, 2))
	words := func(n int, atEnd bool) []float32 {
		w := guarded(t, n, atEnd)
		for i, h := 0, halves(w); i < len(h); i++ {
			h[i] = half.ToBF16(float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(20)))))
			if rng.IntN(50) == 0 {
				h[i] = uint16(rng.IntN(0x80)) // denormal or zero
			}
			if rng.IntN(20) == 0 {
				h[i] = 0x80 << rng.IntN(2) // 2^−126 or 2^−125; the product with a value below 1 may be denormal
			}
		}
		return w
	}
	for rows := 1; rows <= 27; rows++ {
		for _, k := range []int{1, 2, 3, 4, 5, 7, 40} {
			for n := 1; n <= best().panels; n++ {
				cols, lda, atEnd := n*panelCols, k+rows%3, rows%2 == 0
				a, panel := words((rows-1)*lda+k, atEnd), words(k*cols, atEnd)
				bias, add := make([]float32, cols), make([]float32, rows*cols)
				fill(bias, 4)
				fill(add, 5)
				got, want := guarded(t, rows*cols, atEnd), make([]float32, rows*cols)
				fast.tile(got, cols, add, cols, bias, a, lda, rows, panel, k, n)
				for p := range n {
					c := p * panelCols
					form.tile(want[c:], cols, add[c:], cols, bias[c:], a, lda, rows, panel[p*k*panelCols:], k, 1)
				}
				sameBits(t, "tile", got, want)
			}
		}
	}
}

// TestPackPairs checks that packPairs puts each value in its place and zeros elsewhere, and that the assembly, if this
// machine runs it, gives the same panels.
func TestPackPairs(t *testing.T) {
	for _, d := range []int{16, 24, 48, 64} {
		for _, n := range []int{1, 2, 3, 17, 2*blockK - 1, 2 * blockK, 2*blockK + 1, 2*blockK + 2} {
			ld := 3*d + 2
			memory := guarded(t, pairs((n-1)*ld+d), true)
			values := halves(memory)[:(n-1)*ld+d]
			for i := range values {
				values[i] = uint16(i*0x9e37 + 1)
			}
			portable := newPanels(d, pairs(n))
			portable.at = make([]float32, portable.size())
			fill(portable.at, 1)
			packPairs(portable, values, ld, n)
			for j := range 2 * pairs(n) {
				for c := range portable.count * panelCols {
					k := j / 2 / blockK
					from, _ := portable.block(k)
					got := halves(portable.panel(k, c/panelCols))[(j/2-from)*2*panelCols+2*(c%panelCols)+j%2]
					want := uint16(0)
					if j < n && c < d {
						want = values[j*ld+c]
					}
					if got != want {
						t.Fatalf("%d rows of %d values: value %d of row %d is %#x, want %#x", n, d, c, j, got, want)
					}
				}
			}
			if fast := best().pairs; fast.fast {
				got := newPanels(d, pairs(n))
				got.at = make([]float32, got.size())
				fill(got.at, 1)
				fast.packValues(got, values, ld, n)
				sameBits(t, "packed values", got.at, portable.at)
			}
		}
	}
}

// TestArrange checks that the assembly brings the words of a panel into the same order as the function in plain Go.
func TestArrange(t *testing.T) {
	fast, form := fastPairs(t), formOf()
	if fast.arrange == nil {
		t.Skip("these instructions read panels in the usual order")
	}
	for k := 1; k <= 9; k++ {
		for _, atEnd := range []bool{false, true} {
			got := guarded(t, k*panelCols, atEnd)
			fill(got, uint64(k))
			want := slices.Clone(got)
			fast.arrange(got)
			form.arrange(want)
			sameBits(t, "panel", got, want)
		}
	}
}

// TestConformanceBF16 runs the conformance suite with both operands in bfloat16, in assembly. On a machine without
// instructions that multiply bfloat16, it runs RunShortProducts in plain Go, and in short mode nothing. Plain Go gives
// the same bits as the assembly for amd64 (see TestTilePairs). Under the race detector, and in short mode on arm64, it
// runs only the products: the other operations have the same goroutines in float32, and emulators are slow to compute
// BFMMLA, which rounds to odd.
func TestConformanceBF16(t *testing.T) {
	t.Parallel()
	known, run, v := new(kernelstest.Known), kernelstest.Run, best()
	switch {
	case !v.pairs.fast && testing.Short():
		t.Skip("the portable form is slow, and nothing computes with it")
	case !v.pairs.fast:
		run, v = kernelstest.RunShortProducts, portable()
	case raceDetector, testing.Short() && runtime.GOARCH == "arm64":
		run = kernelstest.RunProducts
	}
	run(t, kernels.BF16, known, func() kernels.Backend { return newBackend(3, v, bf16) })
}

// TestBF16InMemory checks that the matrix of a Linear takes half the bytes of float32 if both operands are bfloat16,
// and that the name of the backend mentions bf16.
func TestBF16InMemory(t *testing.T) {
	b := newBackend(1, portable(), bf16)
	defer b.Close()
	if !strings.HasSuffix(b.Name(), " bf16") {
		t.Errorf("the name %q of the backend does not mention bf16", b.Name())
	}
	m := b.NewModel()
	defer m.Close()
	w, err := m.Load(kernels.Projection, randomSource{[]int{32, 901}})
	if err != nil {
		t.Fatal(err)
	}
	if p := w.(*weight).packed; len(p.at) != 32*451 || uintptr(unsafe.Pointer(&p.at[0]))%line != 0 {
		t.Errorf("a projection [32, 901] is stored as %d words", len(p.at))
	}
}
