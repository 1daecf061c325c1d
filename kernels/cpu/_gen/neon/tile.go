package main

import "fmt"

const tileParams = "out *float32, ldout int, add *float32, ldadd int, bias *float32, a *float32, lda int, panel *float32, k int, ahead int"

// maxRows is the largest number of rows of a tile. Its sums, a vector of each row and two vectors of the panel take all
// 32 registers.
const maxRows = 6

// tiles generates a kernel for each number of rows.
func tiles(g *generator) {
	for rows := 1; rows <= maxRows; rows++ {
		tile(g, rows)
	}
}

// tile generates a kernel for rows × 16 sums. Each sum has one accumulator and adds one FMA for each k, in order, so
// that its bits are the same in every kernel. Four values of a row are read at once; the FMAs select one of them.
func tile(g *generator, rows int) {
	name := fmt.Sprintf("tile%dx%dNEON", rows, panelCols)
	plural := "s"
	if rows == 1 {
		plural = ""
	}
	g.function(name, tileParams, "", fmt.Sprintf("%s is a tileFunc for %d row%s and 1 panel.", name, rows, plural))
	lda, k, panel := g.strideParam("lda"), g.param("k"), g.param("panel")
	ahead := g.param("ahead")
	g.op("ADD %s, %s", panel, ahead) // may be past the end of the matrix, where no Go pointer may point
	a := make([]gp, rows)
	a[0] = g.param("a")
	for r := 1; r < rows; r++ {
		a[r] = g.gp()
		g.op("ADD %s, %s, %s", lda, a[r-1], a[r])
	}
	const vectors = panelCols / lanes
	sums, left := make([][vectors]vec, rows), make([]vec, rows)
	for r := range rows {
		for v := range vectors {
			sums[r][v] = g.vec()
			g.zero(sums[r][v])
		}
		left[r] = g.vec()
	}
	right := [2]vec{g.vec(), g.vec()}
	step := func(at, lane int) {
		for pair := 0; pair < vectors; pair += 2 {
			g.loadPair(right[0], right[1], panel, (at*panelCols+pair*lanes)*4)
			for r := range rows {
				g.fmlaLane(sums[r][pair], right[0], left[r], lane)
				g.fmlaLane(sums[r][pair+1], right[1], left[r], lane)
			}
		}
	}

	// One cache line is prefetched for every two lines of a panel.
	const line = 64
	g.op("SUBS $%d, %s", lanes, k)
	g.op("BLT rest")
	g.label("vector")
	for r := range rows {
		g.op("FMOVQ.P %d(%s), %s", vecBytes, a[r], left[r].q())
	}
	for lane := range lanes {
		step(lane, lane)
		if lane%2 == 0 {
			g.op("PRFM %d(%s), PLDL2KEEP", lane/2*line, ahead)
		}
	}
	g.op("ADD $%d, %s", lanes*panelCols*4, panel)
	g.op("ADD $%d, %s", lanes/2*line, ahead)
	g.op("SUBS $%d, %s", lanes, k)
	g.op("BGE vector")
	g.label("rest")
	g.op("ADDS $%d, %s", lanes, k)
	g.op("BEQ summed")
	g.label("value")
	for r := range rows {
		g.op("FMOVS.P 4(%s), %s", a[r], left[r].q())
	}
	step(0, 0)
	g.op("ADD $%d, %s", panelCols*4, panel)
	g.op("SUBS $1, %s", k)
	g.op("BNE value")

	g.label("summed")
	bias := g.param("bias")
	g.op("CBZ %s, unbiased", bias)
	for v := range vectors {
		g.load(right[0], bias, v*vecBytes)
		for r := range rows {
			g.three(fadd, sums[r][v], sums[r][v], right[0])
		}
	}
	g.label("unbiased")
	out, ldout := g.param("out"), g.strideParam("ldout")
	add, ldadd := g.param("add"), g.strideParam("ldadd")
	g.op("CBZ %s, store", add)
	for r := range rows {
		for pair := 0; pair < vectors; pair += 2 {
			g.loadPair(right[0], right[1], add, pair*vecBytes)
			for v := range right {
				g.three(fadd, sums[r][pair+v], sums[r][pair+v], right[v])
			}
		}
		if r < rows-1 {
			g.op("ADD %s, %s", ldadd, add)
		}
	}
	g.label("store")
	for r := range rows {
		for pair := 0; pair < vectors; pair += 2 {
			g.storePair(sums[r][pair], sums[r][pair+1], out, pair*vecBytes)
		}
		if r < rows-1 {
			g.op("ADD %s, %s", ldout, out)
		}
	}
	g.op("RET")
}
