package cpu

// variant is one set of inner loops: what is written once in portable Go and again for each instruction set. Results
// repeat bit for bit within a variant, so its name is part of the backend's.
type variant struct {
	name string
	// panels is how many neighbouring panels tile takes in one pass, at most maxPanels.
	panels int
	tile   tileFunc
	// widen sets out to as many bfloat16 values, a multiple of 16.
	widen func(out []float32, half []uint16)

	// packKeys fills the panels of Kᵀ from the keys, ld values apart. Columns past the last hold anything.
	packKeys func(p *panels, keys []float32, ld int)
	// packValues fills the panels of V from the values, ld values apart.
	packValues func(p *panels, values []float32, ld int)
	// scoreTop gives the largest of n scores
	//
	//	s_j = row[j]·scale − slope·|position − j|
	//
	// The row has room for a whole number of panels.
	scoreTop func(row []float32, n int, scale, slope, position float32) float32
	// scoreExp replaces row[j] by e^(s_j − top) and gives the sum of the n.
	scoreExp func(row []float32, n int, scale, slope, position, top float32) float32

	gelu      func(x []float32)                             // x ← GELU(x)
	gate      func(out, in, up []float32)                   // out = GELU(in) · up
	scale     func(out, in []float32, factor float32)       // out = in · factor
	add       func(out, in []float32)                       // out ← out + in
	normalize func(row, gain, bias []float32, eps float32)  // LayerNorm in place
	turn      func(row, cos, sin []float32, factor float32) // rotary on neighbouring heads
}

// tileFunc computes, for rows r and the n·16 columns c of n neighbouring panels of k inner rows each,
//
//	out[r·ldout + c] = Σ_i a[r·lda + i] · panel[i·16 + c] + bias[c] + add[r·ldadd + c]
//
// without the bias or the addend that is nil. add may be out itself. k is at most blockK. Each sum is kept in one
// accumulator in the order of i, whatever rows and n are.
type tileFunc func(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, n int)

// portable is plain Go, on any machine.
func portable() *variant {
	return &variant{
		name: "portable", panels: 1, tile: tilePortable, widen: widen,
		packKeys: packKeys, packValues: packValues, scoreTop: scoreTop, scoreExp: scoreExp,
		gelu: geluRow, gate: gateRow, scale: scaleRow, add: addTo, normalize: normalize, turn: turn,
	}
}

// best is the fastest variant that this machine can run.
func best() *variant {
	list := variants()
	return list[len(list)-1]
}
