package cpu

import (
	"fmt"
	"math"
	"testing"
)

// tileCase describes a call of a tileFunc: its operands, and by how much each stride exceeds the length of a row.
type tileCase struct {
	rows, n, k             int
	padA, padOut           int
	withBias, withAdd, own bool // own means that add is the memory of out
}

// TestTile checks the matrix product of 1 to 27 rows with each number of panels that a kernel processes together, for
// short and long sums (see tileCase.check).
func TestTile(t *testing.T) {
	withEachVariant(t, func(t *testing.T, v *variant) {
		for rows := 1; rows <= 27; rows++ {
			for _, k := range []int{1, 2, 3, 4, 5, 7, 64, blockK - 1} {
				for n := 1; n <= v.panels; n++ {
					c := tileCase{rows: rows, n: n, k: k, padA: rows % 3, padOut: k % 5, withBias: k%2 == 0, withAdd: rows%2 == 0, own: k%3 == 0}
					t.Run(fmt.Sprintf("%dx%dx%d", rows, n*panelCols, k), func(t *testing.T) { c.check(t, v) })
				}
			}
		}
	})
}

func FuzzTile(f *testing.F) {
	f.Add(uint8(12), uint8(2), uint16(384), uint8(0), uint8(0), uint8(7))
	f.Add(uint8(1), uint8(1), uint16(1), uint8(1), uint8(9), uint8(0))
	f.Fuzz(func(t *testing.T, rows, n uint8, k uint16, padA, padOut, with uint8) {
		for _, v := range variants() {
			c := tileCase{
				rows: 1 + int(rows)%60, n: 1 + int(n)%v.panels, k: 1 + int(k)%blockK, padA: int(padA), padOut: int(padOut),
				withBias: with&1 != 0, withAdd: with&2 != 0, own: with&4 != 0,
			}
			c.check(t, v)
		}
	})
}

// check compares a call of the tileFunc of v with sums in float64. Every row must also have the same bits as a call for
// one row and one panel. On Linux, inaccessible pages beside the operands show that the call accesses no other memory.
func (c tileCase) check(t *testing.T, v *variant) {
	t.Helper()
	cols := c.n * panelCols
	lda, ldout := c.k+c.padA, cols+c.padOut
	for _, atEnd := range []bool{false, true} {
		take := func(n int, seed uint64) []float32 {
			values := guarded(t, n, atEnd)
			fill(values, seed)
			return values
		}
		a, panel := take((c.rows-1)*lda+c.k, 1), take(c.k*cols, 2)
		out := take((c.rows-1)*ldout+cols, 3)
		var bias, add []float32
		ldadd := cols
		if c.withBias {
			bias = take(cols, 4)
		}
		if c.withAdd {
			add = take((c.rows-1)*ldadd+cols, 5)
			if c.own {
				add, ldadd = out, ldout
			}
		}
		before := append([]float32(nil), out...)
		addend := append([]float32(nil), add...)
		v.tile(out, ldout, add, ldadd, bias, a, lda, c.rows, panel, c.k, c.n)

		for r := range c.rows {
			for p := range c.n {
				alone := make([]float32, panelCols)
				var rowAdd, rowBias []float32
				if c.withBias {
					rowBias = bias[p*panelCols:]
				}
				if c.withAdd {
					rowAdd = addend[r*ldadd+p*panelCols:]
				}
				v.tile(alone, panelCols, rowAdd, panelCols, rowBias, a[r*lda:], lda, 1, panel[p*c.k*panelCols:], c.k, 1)
				for i, single := range alone {
					column := p*panelCols + i
					got := out[r*ldout+column]
					if math.Float32bits(got) != math.Float32bits(single) {
						t.Fatalf("%+v: row %d, column %d is %v, but %v alone", c, r, column, got, single)
					}
					want, size := 0.0, 0.0
					term := func(x float64) { want, size = want+x, size+math.Abs(x) }
					for k := range c.k {
						term(float64(a[r*lda+k]) * float64(panel[(p*c.k+k)*panelCols+i]))
					}
					if c.withBias {
						term(float64(bias[column]))
					}
					if c.withAdd {
						term(float64(addend[r*ldadd+column]))
					}
					// Each of at most k+3 roundings adds an error of at most 2^−24 times a partial sum, and no partial
					// sum exceeds the sum of all magnitudes. The portable code also rounds the products.
					if bound := float64(c.k+4) * 0x1p-24 * size; !(math.Abs(float64(got)-want) <= bound) {
						t.Fatalf("%+v: row %d, column %d is %v, want %v within %.3g", c, r, column, got, want, bound)
					}
				}
			}
		}
		for i, x := range before {
			if i%ldout >= cols && out[i] != x {
				t.Fatalf("%+v: value %d, between the rows, is overwritten", c, i)
			}
		}
	}
}
