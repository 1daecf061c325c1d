package cpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// bfmmlaForm returns functions in plain Go that compute the same bits as the functions of pairsBFMMLA, which use the
// instruction BFMMLA of arm64.
func bfmmlaForm() pairVariant {
	return pairVariant{tile: tileQuads, arrange: interleaveForm, narrow: narrowAll, packValues: packPairs}
}

// tileQuads is a tileFunc for one panel whose words are in the order that interleaveForm makes. Like the instruction
// BFMMLA, it first adds the two products of a pair to each other, then adds the result to the sum, and rounds each
// result to odd. The instruction reads two pairs; if the number of pairs is odd, a pair of zeros follows the last pair.
func tileQuads(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, _ int) {
	for r := range rows {
		row := a[r*lda:][:k]
		for c := range panelCols {
			sum := float32(0)
			for i := 0; i < k; i += 2 {
				if i+1 == k {
					sum = addDot(addDot(sum, row[i], panel[i*panelCols+c]), 0, 0)
					continue
				}
				words := panel[i*panelCols+2*c:]
				sum = addDot(addDot(sum, row[i], words[0]), row[i+1], words[1])
			}
			if bias != nil {
				sum += bias[c]
			}
			if add != nil {
				sum += add[r*ldadd+c]
			}
			out[r*ldout+c] = sum
		}
	}
}

// addDot adds the dot product of two pairs to a sum: the function BFDotAdd of the Arm Architecture Reference Manual,
// with FPCR.EBF = 0. Products are exact unless they are denormal or too large.
func addDot(sum, a, b float32) float32 {
	aLow, aHigh := unpack(a)
	bLow, bHigh := unpack(b)
	return addOdd(sum, addOdd(flushed(aLow*bLow), flushed(aHigh*bHigh)))
}

// addOdd returns the sum of two float32 values, rounded to odd.
func addOdd(a, b float32) float32 {
	x, y := float64(a), float64(b)
	sum := x + y
	// rest is the rounding error of sum (Knuth's TwoSum). If rest is not 0, the exact result lies between two
	// neighbouring float64 values, and sum becomes the value whose last bit is odd.
	part := sum - x
	rest := (x - (sum - part)) + (y - part)
	if bits := math.Float64bits(sum); !math.IsInf(sum, 0) && rest != 0 && bits&1 == 0 {
		if (rest > 0) == (sum > 0) {
			bits++
		} else {
			bits--
		}
		sum = math.Float64frombits(bits)
	}
	return toOdd(sum)
}

// toOdd rounds to float32: a value between two neighbours becomes the one with an odd last bit. It replaces denormal
// results by zero, and too large results by infinities.
func toOdd(x float64) float32 {
	magnitude := math.Abs(x)
	switch {
	case x != x, math.IsInf(x, 0), x == 0:
		return float32(x)
	case magnitude < 0x1p-126:
		return float32(math.Copysign(0, x))
	case magnitude >= 0x1p128:
		return float32(math.Inf(int(math.Copysign(1, x))))
	}
	const dropped = 1<<29 - 1 // the last 52 − 23 bits of the fraction, which float32 does not have
	bits := math.Float64bits(x)
	inexact := bits&dropped != 0
	rounded := math.Float32bits(float32(math.Float64frombits(bits &^ dropped)))
	if inexact {
		rounded |= 1
	}
	return math.Float32frombits(rounded)
}

// interleaveForm implements pairVariant.arrange for BFMMLA in plain Go: it takes two rows of a panel at a time and
// writes the two words of each column side by side.
func interleaveForm(panel []float32) {
	for ; len(panel) >= 2*panelCols; panel = panel[2*panelCols:] {
		var both [2 * panelCols]float32
		for i, v := range panel[:2*panelCols] {
			both[i%panelCols*2+i/panelCols] = v
		}
		copy(panel, both[:])
	}
}

// TestRoundsToOdd checks that addOdd returns the exact sum or, if float32 cannot represent it, the neighbouring float32
// value whose last bit is odd.
func TestRoundsToOdd(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		a := float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(120)-60)))
		b := float32(rng.NormFloat64()) * a * float32(math.Exp2(float64(rng.IntN(90)-45)))
		got := addOdd(a, b)
		if odd := math.Float32bits(got)&1 != 0; !odd && float64(got) != exactSum(a, b) {
			t.Fatalf("%b + %b is %b, which is neither odd nor exact", a, b, got)
		}
		exact := new(big.Float).SetPrec(2000).Add(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
		below, above := math.Nextafter32(got, float32(math.Inf(-1))), math.Nextafter32(got, float32(math.Inf(1)))
		if exact.Cmp(big.NewFloat(float64(below))) <= 0 || exact.Cmp(big.NewFloat(float64(above))) >= 0 {
			t.Fatalf("%b + %b is %b, which is not next to the exact sum", a, b, got)
		}
	}
	for _, c := range []struct{ a, b, want float32 }{
		{1, 0x1p-40, 1 + 0x1p-23}, {1, -0x1p-40, 1 - 0x1p-24}, {-1, 0x1p-100, -1 + 0x1p-24}, {1, 0x1p-23, 1 + 0x1p-23},
		{math.MaxFloat32, math.MaxFloat32, float32(math.Inf(1))}, {0x1p-126, -0x1.8p-126, float32(math.Copysign(0, -1))}, {1, -1, 0},
	} {
		if got := addOdd(c.a, c.b); math.Float32bits(got) != math.Float32bits(c.want) {
			t.Errorf("%b + %b is %b, want %b", c.a, c.b, got, c.want)
		}
	}
}

// exactSum returns a + b if float64 can represent the sum, and NaN if it cannot.
func exactSum(a, b float32) float64 {
	exact := new(big.Float).SetPrec(2000).Add(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
	if sum, accuracy := exact.Float64(); accuracy == big.Exact {
		return sum
	}
	return math.NaN()
}
