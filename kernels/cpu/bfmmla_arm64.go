//go:build arm64 && !noasm

package cpu

// pairsBFMMLA returns the part of the variant for FEAT_BF16, the extension of ARMv8 that contains BFMMLA.
func pairsBFMMLA() pairVariant {
	t := tiles{{
		{6, tile6x16BFMMLA}, {4, tile4x16BFMMLA}, {3, tile3x16BFMMLA}, {2, tile2x16BFMMLA}, {1, tile1x16BFMMLA},
	}}
	v := pairVector{round: narrowBFMMLA, rest: narrowAll, pair: pairRowsBFMMLA}
	return pairVariant{fast: true, tile: t.run, arrange: interleave, narrow: v.narrow, packValues: v.packValues}
}

// interleave is pairVariant.arrange for BFMMLA, which reads two pairs of a column at a time.
func interleave(panel []float32) {
	if count := len(panel) / (2 * panelCols); count > 0 {
		interleaveBFMMLA(&panel[0], count)
	}
}
