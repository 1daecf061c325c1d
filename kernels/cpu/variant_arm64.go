//go:build arm64 && !noasm

package cpu

// variants returns the variants that this machine can run, the fastest last. Every arm64 processor on which Go runs has
// NEON.
func variants() []*variant {
	neon := vector{
		lanes: 8, // sum and squares process two vectors of four values at a time
		gelu:  geluNEON, gateGELU: gateGELUNEON, scoreMax: scoreMaxNEON, scoreExp: scoreExpNEON, scale: scaleNEON, add: addNEON,
		sum: sumNEON, squares: squaresNEON, standardize: standardizeNEON, rotate: rotateNEON,
		side: 4, transpose: transpose4NEON, copy16: copy16NEON, widen: widenNEON,
	}
	v := neon.variant("neon", 1, tiles{{
		{6, tile6x16NEON}, {5, tile5x16NEON}, {4, tile4x16NEON}, {3, tile3x16NEON}, {2, tile2x16NEON}, {1, tile1x16NEON},
	}})
	if hasBFMMLA() {
		v.pairs = pairsBFMMLA()
	}
	return []*variant{portable(), v}
}
