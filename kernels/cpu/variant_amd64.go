//go:build amd64 && !noasm

package cpu

import "golang.org/x/sys/cpu"

// variants returns the variants that this machine can run, the fastest last.
func variants() []*variant {
	list := []*variant{portable()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2 {
		list = append(list, vectorAVX2().variant("avx2", 1, tiles{{
			{6, tile6x16AVX2}, {5, tile5x16AVX2}, {4, tile4x16AVX2}, {3, tile3x16AVX2}, {2, tile2x16AVX2}, {1, tile1x16AVX2},
		}}))
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512BW {
			avx512 := vectorAVX512().variant("avx512", 2, tiles{{
				{12, tile12x16AVX512}, {8, tile8x16AVX512}, {6, tile6x16AVX512}, {5, tile5x16AVX512},
				{4, tile4x16AVX512}, {3, tile3x16AVX512}, {2, tile2x16AVX512}, {1, tile1x16AVX512},
			}, {
				{12, tile12x32AVX512}, {8, tile8x32AVX512}, {6, tile6x32AVX512}, {5, tile5x32AVX512},
				{4, tile4x32AVX512}, {3, tile3x32AVX512}, {2, tile2x32AVX512}, {1, tile1x32AVX512},
			}})
			if cpu.X86.HasAVX512BF16 {
				avx512.pairs = pairsAVX512()
			}
			list = append(list, avx512)
		}
	}
	return list
}

// pairsAVX512 returns the functions that compute with pairs of bfloat16 by the instructions of AVX512_BF16.
func pairsAVX512() pairVariant {
	t := tiles{{
		{12, tile12x16BF16}, {8, tile8x16BF16}, {6, tile6x16BF16}, {5, tile5x16BF16},
		{4, tile4x16BF16}, {3, tile3x16BF16}, {2, tile2x16BF16}, {1, tile1x16BF16},
	}, {
		{12, tile12x32BF16}, {8, tile8x32BF16}, {6, tile6x32BF16}, {5, tile5x32BF16},
		{4, tile4x32BF16}, {3, tile3x32BF16}, {2, tile2x32BF16}, {1, tile1x32BF16},
	}}
	v := pairVector{round: narrowBF16, rest: narrow, pair: pairRowsBF16}
	return pairVariant{fast: true, tile: t.run, narrow: v.narrow, packValues: v.packValues}
}

func vectorAVX2() vector {
	return vector{
		lanes: 8, gelu: geluAVX2, gateGELU: gateGELUAVX2, scoreMax: scoreMaxAVX2, scoreExp: scoreExpAVX2, scale: scaleAVX2, add: addAVX2,
		sum: sumAVX2, squares: squaresAVX2, standardize: standardizeAVX2, rotate: rotateAVX2,
		side: 8, transpose: transpose8AVX2, copy16: copy16AVX2, widen: widenAVX2,
	}
}

func vectorAVX512() vector {
	return vector{
		lanes: 16, gelu: geluAVX512, gateGELU: gateGELUAVX512, scoreMax: scoreMaxAVX512, scoreExp: scoreExpAVX512, scale: scaleAVX512, add: addAVX512,
		sum: sumAVX512, squares: squaresAVX512, standardize: standardizeAVX512, rotate: rotateAVX512,
		// With 512-bit vectors packing would not be faster.
		side: 8, transpose: transpose8AVX2, copy16: copy16AVX2, widen: widenAVX2,
	}
}
