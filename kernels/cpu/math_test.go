package cpu

import (
	"math"
	"testing"
)

// TestGELU checks that the error of GELU is at most 4 · 2⁻²⁴ · max(|x|, 1), four roundings, on a dense grid from −8 to
// 8. In assembly the relative error for −5 < x < −0.5 must be at most 12 roundings.
func TestGELU(t *testing.T) {
	const steps = 400_000
	grid := make([]float32, 0, steps+8)
	for i := range steps + 1 {
		grid = append(grid, float32(i)*(16./steps)-8)
	}
	withEachVariant(t, func(t *testing.T, v *variant) {
		got := append([]float32(nil), grid...)
		v.gelu(got)
		worst, at, tail := 0.0, float32(0), 0.0
		for i, x := range grid {
			want := float64(x) * 0.5 * math.Erfc(-float64(x)/math.Sqrt2)
			e := math.Abs(float64(got[i])-want) / math.Max(1, math.Abs(float64(x)))
			if !(e <= worst) {
				worst, at = e, x
			}
			if x < -0.5 && x > -5 {
				tail = math.Max(tail, math.Abs(float64(got[i])/want-1))
			}
		}
		t.Logf("largest error %.3g at %v; relative, for -5 < x < -0.5, %.3g", worst, at, tail)
		if !(worst <= 4*0x1p-24) {
			t.Errorf("the error at %[2]v is %[1].3g, above the bound of 4 roundings", worst, at)
		}
		if v.name != "portable" && !(tail <= 12*0x1p-24) {
			// The bound counts two roundings in the argument of the exponential, four of the exponential, two of
			// quotient and polynomial, and four products.
			t.Errorf("the relative error of the left tail is %.3g, above the bound of 12 roundings", tail)
		}
	})
}

// TestGELUExtremes checks that GELU(x) is x for large x and for infinity, almost 0 for very negative x, and NaN for
// NaN and −∞.
func TestGELUExtremes(t *testing.T) {
	inf := float32(math.Inf(1))
	withEachVariant(t, func(t *testing.T, v *variant) {
		x := []float32{inf, 1e30, 50, 0, -50, -1e30, float32(math.NaN()), -inf}
		v.gelu(x)
		if x[0] != inf || x[1] != 1e30 || x[2] != 50 || x[3] != 0 || math.Abs(float64(x[4])) > 1e-37 || math.Abs(float64(x[5])) > 1e-37 || x[6] == x[6] || x[7] == x[7] {
			t.Errorf("GELU of +Inf, 1e30, 50, 0, -50, -1e30, NaN, -Inf is %v", x)
		}
	})
}

// TestExp checks that the exponentials of a softmax have a relative error of at most 8e-8 (1.3 roundings) over a dense
// grid of scores from −87 to 0, and that the same bound holds for the sum of the exponentials.
func TestExp(t *testing.T) {
	const n = 200_000
	withEachVariant(t, func(t *testing.T, v *variant) {
		row, scores := make([]float32, n), make([]float32, n)
		for i := range row {
			scores[i] = -87 * float32(i) / n
		}
		copy(row, scores)
		sum := 0.0
		for j := 0; j < n; j += blockKeys {
			var part [1]float32
			v.scoreExp(row[j:], 0, min(blockKeys, n-j), 1, 0, 0, []float32{0}, part[:])
			sum += float64(part[0])
		}
		worst, at, want := 0.0, float32(0), 0.0
		for i, x := range scores {
			exact := math.Exp(float64(x))
			want += exact
			if e := math.Abs(float64(row[i])/exact - 1); !(e <= worst) {
				worst, at = e, x
			}
		}
		t.Logf("largest relative error %.3g at %v; of the sum %.3g", worst, at, sum/want-1)
		if !(worst <= 8e-8) {
			t.Errorf("the error of e^%v is %.3g, above the bound 8e-8", at, worst)
		}
		if e := math.Abs(sum/want - 1); !(e <= 8e-8) {
			t.Errorf("the error of the sum is %.3g", e)
		}
	})
}

// TestScoresFarApart checks that scores far or infinitely below the maximum get almost no weight, and that a NaN score
// makes the sum NaN.
func TestScoresFarApart(t *testing.T) {
	withEachVariant(t, func(t *testing.T, v *variant) {
		row := make([]float32, panelCols)
		copy(row, []float32{-1000, 3, float32(math.Inf(-1)), -1e30})
		var queries softmaxRows
		v.softmax(row, panelCols, 4, 1, 0, 0, &queries, 1)
		if row[1] != 1 || queries.sums[0] != 1 || row[0] > 1e-37 || row[2] > 1e-37 || row[3] > 1e-37 {
			t.Errorf("weights %v, sum %v", row[:4], queries.sums[0])
		}
		row[2] = float32(math.NaN())
		v.softmax(row, panelCols, 4, 1, 0, 0, &queries, 1)
		if sum := queries.sums[0]; sum == sum {
			t.Errorf("with a NaN score the sum is %v", sum)
		}
	})
}
