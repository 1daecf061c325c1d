package main

// tilesBF16 generates the kernels for pairs of bfloat16. Rows are multiplied two at a time, so that a kernel for 5 rows
// would not be faster than a kernel for 3 rows and a kernel for 2 rows.
func tilesBF16(g *generator) {
	for _, rows := range []int{1, 2, 3, 4, maxRows} {
		tileBF16(g, rows)
	}
}

// tileBF16 generates a kernel for rows × 16 sums. Each sum is one lane of an accumulator, to which the products of two
// pairs at a time are added, in order. An accumulator has four lanes, for two rows and two columns: first both sums of
// the first row, then both of the second.
//
// Two rows of a panel, 16 pairs each, form 8 vectors; vector c contains both pairs of column 2·c, then both pairs of
// column 2·c + 1. If the panel has an odd number of rows, its last row contains the pairs of columns 0 to 15 in order.
func tileBF16(g *generator, rows int) {
	t := beginTile(g, rows, "BFMMLA")
	sums, left := make([][panelCols / 2]vec, (rows+1)/2), make([][2]vec, (rows+1)/2)
	for p := range sums {
		for c := range sums[p] {
			sums[p][c] = g.vec()
			g.zero(sums[p][c])
		}
		left[p] = [2]vec{g.vec(), g.vec()}
	}
	right := [2]vec{g.vec(), g.vec()}
	// read loads the next bytes of each row of A. The parameter move is the name of the load instruction. read then
	// combines the bytes of two rows, at most 8 bytes of each row in one register.
	read := func(move string, bytes int) {
		for p, l := range left {
			g.op("%s.P %d(%s), %s", move, bytes, t.a[2*p], l[0].q())
			if 2*p+1 < rows {
				g.op("%s.P %d(%s), %s", move, bytes, t.a[2*p+1], right[0].q())
			} else {
				g.zero(right[0])
			}
			if bytes == vecBytes {
				g.op("VZIP2 %s, %s, %s", right[0].as("D2"), l[0].as("D2"), l[1].as("D2"))
			}
			g.op("VZIP1 %s, %s, %s", right[0].as("D2"), l[0].as("D2"), l[0].as("D2"))
		}
	}
	// multiply adds to the sums the products with columns 2·c to 2·c + 3 of the panel.
	multiply := func(c, half int) {
		for p := range sums {
			g.bfmmla(sums[p][c], left[p][half], right[0])
			g.bfmmla(sums[p][c+1], left[p][half], right[1])
		}
	}
	two := func(at, half int) {
		for c := 0; c < len(sums[0]); c += 2 {
			g.loadPair(right[0], right[1], t.panel, at*2*panelCols*4+c*vecBytes)
			multiply(c, half)
		}
	}

	g.op("SUBS $%d, %s", lanes, t.k)
	g.op("BLT rest")
	g.label("vector")
	read("FMOVQ", vecBytes)
	for half := range 2 {
		two(half, half)
		t.prefetch(g, half)
	}
	t.next(g)
	g.op("SUBS $%d, %s", lanes, t.k)
	g.op("BGE vector")
	g.label("rest") // 0 to 3 pairs are left
	g.op("ADDS $%d, %s", lanes, t.k)
	g.op("TBZ $1, %s, last", t.k)
	read("FMOVD", 8)
	two(0, 0)
	g.op("ADD $%d, %s", 2*panelCols*4, t.panel)
	g.label("last")
	g.op("TBZ $0, %s, summed", t.k)
	read("FMOVS", 4)
	zero := left[0][1]
	g.zero(zero)
	for c := 0; c < len(sums[0]); c += 2 {
		g.load(right[0], t.panel, c/2*vecBytes)
		g.op("VZIP2 %s, %s, %s", zero.as("S4"), right[0].as("S4"), right[1].as("S4"))
		g.op("VZIP1 %s, %s, %s", zero.as("S4"), right[0].as("S4"), right[0].as("S4"))
		multiply(c, 0)
	}
	g.label("summed")
	storeSums(g, &t, separate(g, sums, rows, left[0][0]), right)
}

// separate moves the sums from registers that hold sums of two rows to registers that hold sums of one row. It
// overwrites spare.
func separate(g *generator, sums [][panelCols / 2]vec, rows int, spare vec) []rowOfSums {
	separated := make([]rowOfSums, rows)
	for p := range sums {
		for v := range vectors {
			x, y := sums[p][2*v], sums[p][2*v+1]
			g.op("VZIP1 %s, %s, %s", y.as("D2"), x.as("D2"), spare.as("D2"))
			separated[2*p][v] = spare
			if 2*p+1 < rows {
				g.op("VZIP2 %s, %s, %s", y.as("D2"), x.as("D2"), y.as("D2"))
				separated[2*p+1][v] = y
			}
			spare = x
		}
	}
	return separated
}

// packsBF16 generates the functions that round values to bfloat16 and that pack bfloat16 values.
func packsBF16(g *generator) {
	g.function("narrowBFMMLA", "out *uint16, in *float32, n int", "",
		"narrowBFMMLA rounds n values, a positive multiple of 16, to the nearest bfloat16. out may be the memory of in.")
	to, from, n := g.param("out"), g.param("in"), g.param("n")
	in, half := [2]vec{g.vec(), g.vec()}, [2]vec{g.vec(), g.vec()}
	g.label("values")
	for i := range half {
		g.loadPair(in[0], in[1], from, 2*i*vecBytes)
		g.bfcvtn(half[i], in[0], false)
		g.bfcvtn(half[i], in[1], true)
	}
	g.storePair(half[0], half[1], to, 0)
	g.op("ADD $%d, %s", 4*vecBytes, from)
	g.op("ADD $%d, %s", 2*vecBytes, to)
	g.op("SUBS $16, %s", n)
	g.op("BGT values")
	g.op("RET")

	g.function("pairRowsBFMMLA", "panel *uint32, rows *uint16, ld int, count int", "",
		"pairRowsBFMMLA writes count pairs of rows of 16 values, of stride ld, as rows of 16 pairs.")
	panel, first, ld, count := g.param("panel"), g.param("rows"), g.param("ld"), g.param("count")
	g.op("LSL $1, %s", ld) // stride in bytes
	second := g.gp()
	one, other := [2]vec{g.vec(), g.vec()}, [2]vec{g.vec(), g.vec()}
	low, high := g.vec(), g.vec()
	g.label("pair")
	g.op("ADD %s, %s, %s", ld, first, second)
	g.loadPair(one[0], one[1], first, 0)
	g.loadPair(other[0], other[1], second, 0)
	for i := range one {
		g.op("VZIP1 %s, %s, %s", other[i].as("H8"), one[i].as("H8"), low.as("H8"))
		g.op("VZIP2 %s, %s, %s", other[i].as("H8"), one[i].as("H8"), high.as("H8"))
		g.storePair(low, high, panel, 2*i*vecBytes)
	}
	g.op("ADD %s, %s, %s", ld, second, first)
	g.op("ADD $%d, %s", panelCols*4, panel)
	g.op("SUBS $1, %s", count)
	g.op("BNE pair")
	g.op("RET")

	g.function("interleaveBFMMLA", "panel *float32, count int", "",
		"interleaveBFMMLA brings count pairs of rows of 16 words into the order of tile1x16BFMMLA, in place.")
	panel, count = g.param("panel"), g.param("count")
	var rows [2][vectors]vec
	for r := range rows {
		for v := range vectors {
			rows[r][v] = g.vec()
		}
	}
	low, high = g.vec(), g.vec()
	g.label("two")
	for r := range rows {
		for v := 0; v < vectors; v += 2 {
			g.loadPair(rows[r][v], rows[r][v+1], panel, (r*vectors+v)*vecBytes)
		}
	}
	for v := range vectors {
		g.op("VZIP1 %s, %s, %s", rows[1][v].as("S4"), rows[0][v].as("S4"), low.as("S4"))
		g.op("VZIP2 %s, %s, %s", rows[1][v].as("S4"), rows[0][v].as("S4"), high.as("S4"))
		g.storePair(low, high, panel, 2*v*vecBytes)
	}
	g.op("ADD $%d, %s", 2*panelCols*4, panel)
	g.op("SUBS $1, %s", count)
	g.op("BNE two")
	g.op("RET")
}
