//go:build (amd64 || arm64) && !noasm

package cpu

// tile is an assembly kernel for a fixed number of rows. Its function run has two parameters that tileFunc does not
// have: count is the number of tiles to compute, one below the other, and ahead is the distance in bytes from the panel
// to the memory that the kernel prefetches.
type tile struct {
	rows int
	run  func(out *float32, ldout int, add *float32, ldadd int, bias *float32, a *float32, lda int, panel *float32, k int, ahead int, count int)
}

// fits reports whether the tile leaves either no rows or at least three. A kernel for one or two rows has too few
// independent sums to hide the latency of an FMA.
func (t tile) fits(rows int) bool { return t.rows == rows || t.rows+3 <= rows }

// tiles[n-1] lists the kernels for n neighbouring panels, in descending order of rows, down to one row.
type tiles [][]tile

// pick returns the kernel with the most rows that fits, and the number of its tiles that fit below each other.
func pick(list []tile, rows int) (t tile, count int) {
	for _, t := range list {
		for ; t.fits(rows); rows -= t.rows {
			count++
		}
		if count > 0 {
			return t, count
		}
	}
	return list[len(list)-1], 1
}

// run implements tileFunc: it computes any number of rows of n panels by calls of kernels for fixed numbers of rows.
func (t tiles) run(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, n int) {
	cols := n * panelCols
	panel = panel[:k*cols]
	var toBias, toAdd *float32
	if bias != nil {
		toBias = &bias[:cols][0]
	}
	// Each tile prefetches half a panel, from the panels that follow these n panels in memory.
	ahead := 4 * k * cols
	for rows > 0 {
		tile, count := pick(t[n-1], rows)
		height := count * tile.rows
		// The assembly does not check bounds. These index expressions check the last elements that it accesses.
		_, _ = out[(height-1)*ldout+cols-1], a[(height-1)*lda+k-1]
		if add != nil {
			_ = add[(height-1)*ldadd+cols-1]
			toAdd = &add[0]
		}
		tile.run(&out[0], ldout, toAdd, ldadd, toBias, &a[0], lda, &panel[0], k, ahead, count)
		ahead += count * 4 * k * panelCols / 2
		if rows -= height; rows > 0 {
			out, a = out[height*ldout:], a[height*lda:]
			if add != nil {
				add = add[height*ldadd:]
			}
		}
	}
}
