// Package polynomial contains the polynomials that the kernels of all instruction sets evaluate.
package polynomial

import "math"

// Exp are the coefficients of e^r = 1 + r + r²·q(r) for |r| ≤ ln2/2, lowest power first. The coefficients of q are
// interpolated at the Chebyshev points. The relative error is below 1.1e-8.
var Exp = []float32{1, 1, 0.5, 0.16666576, 0.041666556, 0.008363185, 0.0013926191}

// ExpShift rounds a float32 of small magnitude to an integer when it is added to that float32.
const ExpShift = 3 << 22

// Ln2High and Ln2Low are ln2 in two parts. Ln2High has so few significant bits that its product with an exponent is
// exact.
const (
	Ln2High = 0.693359375
	Ln2Low  = math.Ln2 - Ln2High
)

// Tail are the coefficients of Φ(−t)·e^(t²/2)·(t+4) as a polynomial in s = (t−4)/(t+4), lowest power first,
// interpolated at the Chebyshev points of 0 ≤ t ≤ 8. The relative error is 4e-8 up to t = 5, and 1e-5 at t = 13, where
// Φ(−t) is 6e-39.
var Tail = []float32{0.75528514, -0.6078966, 0.38713837, -0.18652008, 0.0603797, -0.00758999, -0.0034447704, 0.0019255073, 0.0005603627}

// TailCentre is the constant 4 in s = (t−4)/(t+4), the variable of the polynomial Tail.
const TailCentre = 4
