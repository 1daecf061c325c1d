//go:build amd64 && !noasm

package cpu

import "golang.org/x/sys/cpu"

// variants lists those that this machine can run, the fastest last.
func variants() []*variant {
	list := []*variant{portable()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2 {
		list = append(list, vectorAVX2().variant("avx2", 1, tiles{{
			tile1x16AVX2, tile2x16AVX2, tile3x16AVX2, tile4x16AVX2, tile5x16AVX2, tile6x16AVX2,
		}}))
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512BW {
			list = append(list, vectorAVX512().variant("avx512", 2, tiles{{
				tile1x16AVX512, tile2x16AVX512, tile3x16AVX512, tile4x16AVX512, tile5x16AVX512, tile6x16AVX512,
				tile7x16AVX512, tile8x16AVX512, tile9x16AVX512, tile10x16AVX512, tile11x16AVX512, tile12x16AVX512,
			}, {
				tile1x32AVX512, tile2x32AVX512, tile3x32AVX512, tile4x32AVX512, tile5x32AVX512, tile6x32AVX512,
				tile7x32AVX512, tile8x32AVX512, tile9x32AVX512, tile10x32AVX512, tile11x32AVX512, tile12x32AVX512,
			}}))
		}
	}
	return list
}

func vectorAVX2() vector {
	return vector{
		lanes: 8, gelu: geluAVX2, gate: gateAVX2, scoreTop: scoreTopAVX2, scoreExp: scoreExpAVX2, scale: scaleAVX2, add: addAVX2,
		sum: sumAVX2, squares: squaresAVX2, standardize: standardizeAVX2, turn: turnAVX2,
	}
}

func vectorAVX512() vector {
	return vector{
		lanes: 16, gelu: geluAVX512, gate: gateAVX512, scoreTop: scoreTopAVX512, scoreExp: scoreExpAVX512, scale: scaleAVX512, add: addAVX512,
		sum: sumAVX512, squares: squaresAVX512, standardize: standardizeAVX512, turn: turnAVX512,
	}
}

// tiles holds the assembly for 1, 2 … panels, for 1, 2, 3 … rows each.
type tiles [][]func(out *float32, ldout int, add *float32, ldadd int, bias *float32, a *float32, lda int, panel *float32, k int, ahead int)

// run is a tileFunc. The rows are dealt out evenly: a kernel for two rows
// would wait for its own sums.
func (t tiles) run(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, n int) {
	cols := n * panelCols
	panel = panel[:k*cols]
	var toBias, toAdd *float32
	if bias != nil {
		toBias = &bias[:cols][0]
	}
	kernels := t[n-1]
	// Each pass has the panels that come next brought nearer, half as much as
	// one panel.
	ahead := 4 * k * cols
	for passes := (rows + len(kernels) - 1) / len(kernels); passes > 0; passes-- {
		height := (rows + passes - 1) / passes
		// The kernels check nothing: their last elements are checked here.
		_, _ = out[(height-1)*ldout+cols-1], a[(height-1)*lda+k-1]
		if add != nil {
			_ = add[(height-1)*ldadd+cols-1]
			toAdd = &add[0]
		}
		kernels[height-1](&out[0], ldout, toAdd, ldadd, toBias, &a[0], lda, &panel[0], k, ahead)
		ahead += 4 * k * panelCols / 2
		if rows -= height; rows > 0 {
			out, a = out[height*ldout:], a[height*lda:]
			if add != nil {
				add = add[height*ldadd:]
			}
		}
	}
}
