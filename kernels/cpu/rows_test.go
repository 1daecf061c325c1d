package cpu

import (
	"math"
	"testing"
)

// TestRows checks every operation that computes row by row (see checkRows) for rows of 1 to 70 values and for some
// longer ones.
func TestRows(t *testing.T) {
	withEachVariant(t, func(t *testing.T, v *variant) {
		for n := 1; n <= 70; n++ {
			checkRows(t, v, n, uint64(n))
		}
		for _, n := range []int{127, 320, 511, 512, 513, 1025} {
			checkRows(t, v, n, uint64(n))
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add(uint16(1), uint64(1))
	f.Add(uint16(527), uint64(2))
	f.Fuzz(func(t *testing.T, n uint16, seed uint64) {
		for _, v := range variants() {
			checkRows(t, v, 1+int(n)%1100, seed)
		}
	})
}

// checkRows compares each row operation of v on n values with the same operation in plain Go. If the operation computes
// each value separately, each value must have the same bits as when it is computed alone. On Linux, inaccessible pages
// beside the values show that the operation accesses no other memory.
func checkRows(t *testing.T, v *variant, n int, seed uint64) {
	t.Helper()
	plain := portable()
	for _, atEnd := range []bool{false, true} {
		take := func(n int, seed uint64) []float32 {
			values := guarded(t, n, atEnd)
			fill(values, seed)
			return values
		}
		x, y, z := take(n, seed), take(n, seed+1), take(n, seed+2)
		out := guarded(t, n, atEnd)
		elementwise := []struct {
			name      string
			roundings float64 // permitted difference, in roundings (see near)
			run       func(v *variant, out []float32, from, to int)
		}{
			{"gelu", 4, func(v *variant, out []float32, from, to int) { copy(out, x[from:to]); v.gelu(out) }},
			// The factor y, which is up to 4, multiplies the error of GELU.
			{"gate by GELU", 16, func(v *variant, out []float32, from, to int) { v.gateGELU(out, x[from:to], y[from:to]) }},
			{"scale", 0, func(v *variant, out []float32, from, to int) { v.scale(out, 0, x[from:to], 0, to-from, []float32{0.3}) }},
			{"add", 0, func(v *variant, out []float32, from, to int) { copy(out, x[from:to]); v.add(out, y[from:to]) }},
		}
		for _, op := range elementwise {
			op.run(v, out, 0, n)
			want := make([]float32, n)
			op.run(plain, want, 0, n)
			near(t, v.name+" "+op.name, out, want, op.roundings)
			for i := range n {
				var single [1]float32
				if op.run(v, single[:], i, i+1); math.Float32bits(single[0]) != math.Float32bits(out[i]) {
					t.Fatalf("%s %s: value %d of %d is %v, but %v alone", v.name, op.name, i, n, out[i], single[0])
				}
			}
		}

		copy(out, x)
		v.normalize(out, y, z, 1e-5)
		want := append([]float32(nil), x...)
		plain.normalize(want, y, z, 1e-5)
		// The gain y, which is up to 4, multiplies the error, and the bias z may cancel the product.
		near(t, v.name+" normalize", out, want, 16)

		for _, slope := range []float32{0.1, 0} {
			checkScores(t, v, n, seed, atEnd, slope)
		}

		const heads = 3
		rotated, half := take(heads*2*n, seed), n
		want = append([]float32(nil), rotated...)
		v.rotate(rotated, x[:half], y[:half], 0.125)
		plain.rotate(want, x[:half], y[:half], 0.125)
		near(t, v.name+" rotate", rotated, want, 4)
	}
}

// checkScores compares the passes of the softmax over rows of n scores, and the scaling of rows, with the same
// operations in plain Go.
func checkScores(t *testing.T, v *variant, n int, seed uint64, atEnd bool, slope float32) {
	t.Helper()
	plain := portable()
	const queries = 3
	ld := (n + panelCols - 1) &^ (panelCols - 1)
	rows := guarded(t, queries*ld, atEnd)
	for i := range rows {
		rows[i] = float32(math.NaN()) // the padding, which must not affect the result
	}
	for r := range queries {
		fill(rows[r*ld:][:n], seed+uint64(r))
	}
	want := append([]float32(nil), rows...)
	position := float32(n / 3)
	maxima, wantMaxima := guarded(t, queries, atEnd), make([]float32, queries)
	v.scoreMax(rows, ld, n, 0.7, slope, position, maxima)
	plain.scoreMax(want, ld, n, 0.7, slope, position, wantMaxima)
	near(t, v.name+" maximum", maxima, wantMaxima, 4)
	sums, wantSums := guarded(t, queries, atEnd), make([]float32, queries)
	copy(maxima, wantMaxima)
	v.scoreExp(rows, ld, n, 0.7, slope, position, maxima, sums)
	plain.scoreExp(want, ld, n, 0.7, slope, position, wantMaxima, wantSums)
	// Two errors exceed a few roundings: the rounding error of a score is a relative error of its exponential, and
	// one lane of a vector adds as many as n/4 weights.
	for r := range queries {
		near(t, v.name+" weights", rows[r*ld:][:n], want[r*ld:][:n], 32)
	}
	near(t, v.name+" sum", sums, wantSums, 32)

	scaled, wantScaled := guarded(t, queries*n, atEnd), make([]float32, queries*n)
	v.scale(scaled, n, rows, ld, n, sums)
	plain.scale(wantScaled, n, rows, ld, n, sums)
	near(t, v.name+" scale of rows", scaled, wantScaled, 0)
}

// near checks that no difference exceeds the given number of roundings. A rounding is 2^−24 times the largest magnitude
// in want, or 2^−24 if that magnitude is below 1.
func near(t *testing.T, what string, got, want []float32, roundings float64) {
	t.Helper()
	size := 1.0
	for _, w := range want {
		size = max(size, math.Abs(float64(w)))
	}
	for i, w := range want {
		if e := math.Abs(float64(got[i]) - float64(w)); !(e <= roundings*0x1p-24*size) {
			t.Fatalf("%s: value %d of %d is %v, but %v in portable code", what, i, len(want), got[i], w)
		}
	}
}

// TestPacking checks that keys and values are packed for attention in the same way as by plain Go, also for head sizes
// and lengths that are not multiples of the width of a panel.
func TestPacking(t *testing.T) {
	withEachVariant(t, func(t *testing.T, v *variant) {
		plain := portable()
		for _, d := range []int{1, 8, 12, 16, 20, 24, 64, 128} {
			for _, n := range []int{1, 2, 7, 8, 9, 15, 16, 17, 33, 400} {
				for _, atEnd := range []bool{false, true} {
					ld := d + 3
					source := guarded(t, (n-1)*ld+d, atEnd)
					fill(source, uint64(n))
					for _, values := range []bool{false, true} {
						shape := newPanels(n, d)
						pack, plainPack := v.packKeys, plain.packKeys
						if values {
							shape = newPanels(d, n)
							pack, plainPack = v.packValues, plain.packValues
						}
						got, want := *shape, *shape
						got.at, want.at = guarded(t, shape.size(), atEnd), make([]float32, shape.size())
						pack(&got, source, ld)
						plainPack(&want, source, ld)
						for k := range want.blocks() {
							for p := range want.count {
								for i, w := range want.panel(k, p) {
									if p*panelCols+i%panelCols < want.cols && got.panel(k, p)[i] != w {
										t.Fatalf("%d rows of %d, values %v: panel %d, value %d is %v, want %v", n, d, values, p, i, got.panel(k, p)[i], w)
									}
								}
							}
						}
					}
				}
			}
		}
	})
}
