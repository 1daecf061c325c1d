//go:build (amd64 || arm64) && !noasm

package cpu

// tile is an assembly kernel for a fixed number of rows. The parameters of run are those of tileFunc without rows and
// n, and ahead, the distance in bytes from panel to the memory that the kernel prefetches.
type tile struct {
	rows int
	run  func(out *float32, ldout int, add *float32, ldadd int, bias *float32, a *float32, lda int, panel *float32, k int, ahead int)
}

// tiles[n-1] lists the kernels for n neighbouring panels, in descending order of rows, down to one row.
type tiles [][]tile

// pick returns the kernel with the most rows that leaves either no rows or at least three. A kernel for one or two rows
// has too few independent sums to hide the latency of an FMA.
func pick(list []tile, rows int) tile {
	for _, t := range list {
		if t.rows == rows || t.rows+3 <= rows {
			return t
		}
	}
	return list[len(list)-1]
}

// run implements tileFunc: it computes any number of rows of n panels by calls of kernels for fixed numbers of rows.
func (t tiles) run(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, n int) {
	cols := n * panelCols
	panel = panel[:k*cols]
	var toBias, toAdd *float32
	if bias != nil {
		toBias = &bias[:cols][0]
	}
	// The calls prefetch the panels that follow, half a panel per call.
	ahead := 4 * k * cols
	for rows > 0 {
		tile := pick(t[n-1], rows)
		// The assembly does not check bounds. These index expressions check the last elements that it accesses.
		_, _ = out[(tile.rows-1)*ldout+cols-1], a[(tile.rows-1)*lda+k-1]
		if add != nil {
			_ = add[(tile.rows-1)*ldadd+cols-1]
			toAdd = &add[0]
		}
		tile.run(&out[0], ldout, toAdd, ldadd, toBias, &a[0], lda, &panel[0], k, ahead)
		ahead += 4 * k * panelCols / 2
		if rows -= tile.rows; rows > 0 {
			out, a = out[tile.rows*ldout:], a[tile.rows*lda:]
			if add != nil {
				add = add[tile.rows*ldadd:]
			}
		}
	}
}
