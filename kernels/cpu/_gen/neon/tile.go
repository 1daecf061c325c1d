package main

import "fmt"

const tileParams = "out *float32, ldout int, add *float32, ldadd int, bias *float32, a *float32, lda int, panel *float32, k int, ahead int, count int"

// maxRows is the largest number of rows of a tile. The sums of such a tile, a vector of each row and two vectors of the
// panel take all 32 registers.
const maxRows = 6

// tiles generates a kernel for each number of rows.
func tiles(g *generator) {
	for rows := 1; rows <= maxRows; rows++ {
		tile(g, rows)
	}
}

// tile generates a kernel that computes count tiles of rows × 16 sums, one below the other. Each sum has one
// accumulator and adds one FMA for each k, in order, so that its bits are the same in every kernel. The kernel reads
// four values of a row at once; each FMA selects one of them.
func tile(g *generator, rows int) {
	t := beginTile(g, rows, "NEON")
	sums, left := make([]rowOfSums, rows), make([]vec, rows)
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
			g.loadPair(right[0], right[1], t.panel, (at*panelCols+pair*lanes)*4)
			for r := range rows {
				g.fmlaLane(sums[r][pair], right[0], left[r], lane)
				g.fmlaLane(sums[r][pair+1], right[1], left[r], lane)
			}
		}
	}

	g.op("SUBS $%d, %s", lanes, t.k)
	g.op("BLT rest")
	g.label("vector")
	for r := range rows {
		g.op("FMOVQ.P %d(%s), %s", vecBytes, t.a[r], left[r].q())
	}
	for lane := range lanes {
		step(lane, lane)
		if lane%2 == 0 {
			t.prefetch(g, lane/2)
		}
	}
	t.next(g)
	g.op("SUBS $%d, %s", lanes, t.k)
	g.op("BGE vector")
	g.label("rest")
	g.op("ADDS $%d, %s", lanes, t.k)
	g.op("BEQ summed")
	g.label("value")
	for r := range rows {
		g.op("FMOVS.P 4(%s), %s", t.a[r], left[r].q())
	}
	step(0, 0)
	g.op("ADD $%d, %s", panelCols*4, t.panel)
	g.op("SUBS $1, %s", t.k)
	g.op("BNE value")
	g.label("summed")
	storeSums(g, &t, sums, right)
}

const (
	vectors = panelCols / lanes // number of vectors in a row of a tile
	line    = 64                // bytes of a cache line
)

// rowOfSums is the sums of one row of a tile.
type rowOfSums = [vectors]vec

// operands is the registers with which a tile reads its operands.
type operands struct {
	lda, k, panel, ahead gp
	a                    []gp // one for each row
}

// beginTile begins the function for a tile of rows × 16 sums and loads its parameters.
func beginTile(g *generator, rows int, suffix string) operands {
	name := fmt.Sprintf("tile%dx%d%s", rows, panelCols, suffix)
	plural := "s"
	if rows == 1 {
		plural = ""
	}
	g.function(name, tileParams, "", fmt.Sprintf("%s is a tileFunc for %d row%s and 1 panel.", name, rows, plural))
	t := operands{lda: g.strideParam("lda"), k: g.gp(), panel: g.param("panel"), ahead: g.param("ahead"), a: make([]gp, rows)}
	// t.ahead becomes the address to prefetch. It may be past the end of the matrix, where no Go pointer may point.
	g.op("ADD %s, %s", t.panel, t.ahead)
	t.a[0] = g.param("a")
	for r := 1; r < rows; r++ {
		t.a[r] = g.gp()
		g.op("ADD %s, %s, %s", t.lda, t.a[r-1], t.a[r])
	}
	g.label("tile")
	g.op("MOVD %s, %s", g.params["k"], t.k)
	g.op("MOVD %s, %s", g.params["panel"], t.panel)
	return t
}

// prefetch generates the prefetch of one cache line. A kernel prefetches one line for every two lines of the panel that
// it reads.
func (t *operands) prefetch(g *generator, i int) {
	g.op("PRFM %d(%s), PLDL2KEEP", i*line, t.ahead)
}

// next advances by four rows of the panel.
func (t *operands) next(g *generator) {
	g.op("ADD $%d, %s", lanes*panelCols*4, t.panel)
	g.op("ADD $%d, %s", lanes/2*line, t.ahead)
}

// storeSums generates the end of a tile. The code adds the bias and the matrix add to the sums and stores them. Then it
// continues with the next tile, which is below this one, or returns. It overwrites the registers spare.
func storeSums(g *generator, t *operands, sums []rowOfSums, spare [2]vec) {
	rows := len(sums)
	bias := g.param("bias")
	g.op("CBZ %s, unbiased", bias)
	for v := range vectors {
		g.load(spare[0], bias, v*vecBytes)
		for r := range rows {
			g.three(fadd, sums[r][v], sums[r][v], spare[0])
		}
	}
	g.label("unbiased")
	out, ldout := g.param("out"), g.strideParam("ldout")
	add, ldadd := g.param("add"), g.strideParam("ldadd")
	g.op("CBZ %s, store", add)
	for r := range rows {
		for pair := 0; pair < vectors; pair += 2 {
			g.loadPair(spare[0], spare[1], add, pair*vecBytes)
			for v := range spare {
				g.three(fadd, sums[r][pair+v], sums[r][pair+v], spare[v])
			}
		}
		g.op("ADD %s, %s", ldadd, add)
	}
	g.op("MOVD %s, %s", add, g.params["add"])
	g.label("store")
	for r := range rows {
		for pair := 0; pair < vectors; pair += 2 {
			g.storePair(sums[r][pair], sums[r][pair+1], out, pair*vecBytes)
		}
		g.op("ADD %s, %s", ldout, out)
	}
	g.op("MOVD %s, %s", out, g.params["out"])

	// The pointers to A have advanced by k values.
	next, below, count := g.gp(), g.strideParam("k"), g.param("count")
	g.op("MOVD $%d, %s", rows, next)
	g.op("MUL %s, %s", t.lda, next)
	g.op("SUB %s, %s", below, next)
	for _, a := range t.a {
		g.op("ADD %s, %s", next, a)
	}
	g.op("SUBS $1, %s", count)
	g.op("MOVD %s, %s", count, g.params["count"])
	g.op("BNE tile")
	g.op("RET")
}
