package cpu

import "math"

// erfP and erfQ are the coefficients of P and Q, lowest power first, in erf(z) = z·P(z²)/Q(z²) for |z| < 4.4. For
// larger |z|, erf differs from ±1 by less than 5e-10. The coefficients are our own least-squares fit, iteratively
// reweighted towards the minimax solution. The largest absolute error is 2.9e-9 (TestGELU compares with math.Erfc).
var (
	erfP = [...]float64{1.1283791947243744, 0.19292270842957523, 0.056132064586102315,
		0.00427799790294234, 0.0004286915773272706, 7.458362936805049e-06}
	erfQ = [...]float64{1, 0.5043070083605365, 0.11784641357368991, 0.016455648310038904,
		0.0014542213993615684, 7.740591501642185e-05, 2.969700717488876e-07}
)

const erfLimit = 4.4

// gelu returns x·Φ(x) = x/2·(1 + erf(x/√2)), computed in float64 and rounded once.
func gelu(x float32) float32 {
	z := float64(x) * (1 / math.Sqrt2)
	switch {
	case z > erfLimit:
		return x
	case z < -erfLimit:
		return x * 0 // −0, or NaN if x is −∞
	}
	t := z * z
	p := ((((erfP[5]*t+erfP[4])*t+erfP[3])*t+erfP[2])*t+erfP[1])*t + erfP[0]
	q := (((((erfQ[6]*t+erfQ[5])*t+erfQ[4])*t+erfQ[3])*t+erfQ[2])*t+erfQ[1])*t + erfQ[0]
	return float32(0.5 * float64(x) * (1 + z*p/q))
}

// exp returns e^x for x ≤ 0. It computes 2^n · e^r with an integer n and |r| ≤ ln2/2. e^r is computed by its Taylor
// series, with a remainder below 6e-9. For x below -87 it returns 0.
func exp(x float32) float32 {
	if x < -87 {
		return 0
	}
	const shift = 3 << 51 // adding shift rounds to an integer
	v := float64(x)
	n := v*math.Log2E + shift
	r := v - (n-shift)*math.Ln2
	e := 1 + r*(1+r*(1./2+r*(1./6+r*(1./24+r*(1./120+r*(1./720+r*(1./5040)))))))
	return float32(e * math.Float64frombits((math.Float64bits(n)+1023)<<52))
}

// geluRow replaces each value by its GELU.
func geluRow(x []float32) {
	for c, v := range x {
		x[c] = gelu(v)
	}
}

// gateGELURow sets each value of out to GELU(in) · up.
func gateGELURow(out, in, up []float32) {
	in, up = in[:len(out)], up[:len(out)]
	for c, g := range in {
		out[c] = gelu(g) * up[c]
	}
}

// scaleRows implements variant.scale in plain Go.
func scaleRows(out []float32, ldout int, in []float32, ldin, n int, factors []float32) {
	for r, factor := range factors {
		to := out[r*ldout:][:n]
		for c, v := range in[r*ldin:][:n] {
			to[c] = v * factor
		}
	}
}

// addTo adds the first len(dst) values of src to dst.
func addTo(dst, src []float32) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] += v
	}
}
