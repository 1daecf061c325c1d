package main

// packs generates the functions that pack panels, and the conversion of bfloat16 to float32.
func packs(g *generator) {
	g.function("transpose4NEON", "panel *float32, rows *float32, ld int, count int, k int", "",
		"transpose4NEON writes the first k values, a positive multiple of 4, of 4 rows as 4 columns of a panel. Rows from count on repeat the last row.")
	panel, ld, count, k := g.param("panel"), g.strideParam("ld"), g.param("count"), g.param("k")
	row := [lanes]gp{g.param("rows"), g.gp(), g.gp(), g.gp()}
	for r := 1; r < lanes; r++ {
		g.op("CMP $%d, %s", r, count)
		g.op("CSEL GT, %s, ZR, %[1]s", ld) // from row count on the stride is 0, so row count−1 is read again
		g.op("ADD %s, %s, %s", ld, row[r-1], row[r])
	}
	var in, pairs, out [lanes]vec
	for i := range lanes {
		in[i], pairs[i], out[i] = g.vec(), g.vec(), g.vec()
	}
	g.label("block")
	for r := range lanes {
		g.op("FMOVQ.P %d(%s), %s", vecBytes, row[r], in[r].q())
	}
	// pairs[2·i + c] contains the values c and c+2 of rows 2·i and 2·i+1.
	for i := range lanes {
		first := i &^ 1
		g.op("VTRN%d %s, %s, %s", i%2+1, in[first+1].as("S4"), in[first].as("S4"), pairs[i].as("S4"))
	}
	for c := range lanes {
		g.op("VTRN%d %s, %s, %s", c/2+1, pairs[2+c%2].as("D2"), pairs[c%2].as("D2"), out[c].as("D2"))
		g.store(out[c], panel, 4*panelCols*c)
	}
	g.op("ADD $%d, %s", lanes*4*panelCols, panel)
	g.op("SUBS $%d, %s", lanes, k)
	g.op("BGT block")
	g.op("RET")

	g.function("copy16NEON", "panel *float32, rows *float32, ld int, count int", "", "copy16NEON writes 16 values each of count rows to a panel.")
	to, from, stride, n := g.param("panel"), g.param("rows"), g.strideParam("ld"), g.param("count")
	v := [lanes]vec{g.vec(), g.vec(), g.vec(), g.vec()}
	g.label("row")
	for i := 0; i < lanes; i += 2 {
		g.loadPair(v[i], v[i+1], from, i*vecBytes)
	}
	for i := 0; i < lanes; i += 2 {
		g.storePair(v[i], v[i+1], to, i*vecBytes)
	}
	g.op("ADD $%d, %s", 4*panelCols, to)
	g.op("ADD %s, %s", stride, from)
	g.op("SUBS $1, %s", n)
	g.op("BNE row")
	g.op("RET")

	g.function("widenNEON", "out *float32, half *uint16, n int", "", "widenNEON writes n bfloat16 values, a positive multiple of 16, as float32.")
	to, from, n = g.param("out"), g.param("half"), g.param("n")
	half, zero := [2]vec{g.vec(), g.vec()}, g.vec()
	g.zero(zero)
	next := g.gp()
	g.op("ADD %s<<1, %s, %s", n, from, next) // address to prefetch, which may be past the end of the matrix
	g.label("values")
	g.op("PRFM (%s), PLDL2KEEP", next)
	g.loadPair(half[0], half[1], from, 0)
	for i, h := range half {
		low, high := vec(10), vec(11)
		g.op("VZIP1 %s, %s, %s", h.as("H8"), zero.as("H8"), low.as("H8"))
		g.op("VZIP2 %s, %s, %s", h.as("H8"), zero.as("H8"), high.as("H8"))
		g.storePair(low, high, to, 2*i*vecBytes)
	}
	g.op("ADD $32, %s", from)
	g.op("ADD $32, %s", next)
	g.op("ADD $64, %s", to)
	g.op("SUBS $16, %s", n)
	g.op("BGT values")
	g.op("RET")
}

// chains is the number of independent accumulators in the loop of peak. It exceeds latency times throughput of the FMA
// units, so that the units are always busy.
const chains = 24

// peak generates a loop of FMAs. Package bench/peak measures the peak rate of a core with this loop.
func peak(g *generator) {
	g.function("fmaNEON", "n int", "", "fmaNEON runs n rounds of 24 independent multiply-add instructions.")
	n, factor := g.param("n"), g.vec()
	g.zero(factor)
	var sums [chains]vec
	for c := range sums {
		sums[c] = g.vec()
		g.zero(sums[c])
	}
	g.label("loop")
	for _, s := range sums {
		g.fmlaLane(s, factor, factor, 0)
	}
	g.op("SUBS $1, %s", n)
	g.op("BNE loop")
	g.op("RET")
}
