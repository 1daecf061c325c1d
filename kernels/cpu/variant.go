package cpu

// variant is one set of inner loops: what is written once in portable Go and
// again for each instruction set. Results repeat bit for bit within a variant,
// so its name is part of the backend's.
type variant struct {
	name string
	// panels is how many neighbouring panels tile takes in one pass.
	panels int
	tile   tileFunc
}

// tileFunc computes, for rows r and the n·16 columns c of n neighbouring
// panels of k inner rows each,
//
//	out[r·ldout + c] = Σ_i a[r·lda + i] · panel[i·16 + c] + bias[c] + add[r·ldadd + c]
//
// without the bias or the addend that is nil. add may be out itself. Each sum
// is kept in one accumulator in the order of i, whatever rows and n are.
type tileFunc func(out []float32, ldout int, add []float32, ldadd int, bias []float32,
	a []float32, lda, rows int, panel []float32, k, n int)

// portable is plain Go, on any machine.
func portable() *variant {
	return &variant{name: "portable", panels: 1, tile: tilePortable}
}

// best is the fastest variant that this machine can run.
func best() *variant {
	list := variants()
	return list[len(list)-1]
}
