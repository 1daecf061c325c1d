//go:build arm64 && !noasm

package cpu

// pairsBFMMLA returns the functions that compute with pairs of bfloat16 by the instruction BFMMLA. The instruction
// belongs to FEAT_BF16, an extension of ARMv8.
func pairsBFMMLA() pairVariant {
	t := tiles{{
		{6, tile6x16BFMMLA}, {4, tile4x16BFMMLA}, {3, tile3x16BFMMLA}, {2, tile2x16BFMMLA}, {1, tile1x16BFMMLA},
	}}
	v := pairVector{round: narrowBFMMLA, rest: narrowAll, pair: pairRowsBFMMLA}
	return pairVariant{fast: true, tile: t.run, arrange: interleave, narrow: v.narrow, packValues: v.packValues}
}

// interleave implements pairVariant.arrange for the instruction BFMMLA, which reads two pairs of a column at a time.
func interleave(panel []float32) {
	if count := len(panel) / (2 * panelCols); count > 0 {
		interleaveBFMMLA(&panel[0], count)
	}
}
