package cpu

import (
	"fmt"

	"seqembed/kernels"
)

// variant is one implementation of the inner loops: portable Go, or assembly for one instruction set. Results repeat
// bit for bit within a variant, so the name of the variant is part of the backend's name.
type variant struct {
	name string
	// panels is the number of neighbouring panels that tile processes together, at most maxPanels.
	panels int
	tile   tileFunc
	// widen converts len(out) bfloat16 values to float32.
	widen func(out []float32, half []uint16)

	// packKeys packs the keys, which have stride ld, as panels of Kᵀ. The values in padding columns are undefined.
	packKeys func(p *panels, keys []float32, ld int)
	// packValues packs the values, which have stride ld, as panels of V.
	packValues func(p *panels, values []float32, ld int)
	// scoreMax sets maxima to the maximum score of each row. It does not change the rows, which begin ld values apart.
	// Row r has n scores:
	//
	//	s_j = row[j]·scale − slope·|position + r − j|
	//
	// Each row has room for a whole number of panels. The number of rows is len(maxima).
	scoreMax func(rows []float32, ld, n int, scale, slope, position float32, maxima []float32)
	// scoreExp replaces row[j] by e^(s_j − maximum), and sets sums to the sum of the n results of each row.
	scoreExp func(rows []float32, ld, n int, scale, slope, position float32, maxima, sums []float32)
	// scale sets n values in each row of out to the row of in, multiplied by the row's factor. The strides of the rows
	// are ldout and ldin; the number of rows is len(factors).
	scale func(out []float32, ldout int, in []float32, ldin, n int, factors []float32)

	gelu      func(x []float32)                            // x ← GELU(x)
	gateGELU  func(out, in, up []float32)                  // out = GELU(in) · up
	add       func(out, in []float32)                      // out ← out + in
	normalize func(row, gain, bias []float32, eps float32) // LayerNorm in place
	// rotate multiplies the heads in row by factor and applies the rotary embedding to each of them, in place.
	rotate func(row, cos, sin []float32, factor float32)

	pairs pairVariant
}

// pairVariant is the part of a variant that computes with pairs of bfloat16.
type pairVariant struct {
	fast bool // whether the instruction set has an instruction that multiplies pairs of bfloat16
	tile tileFunc
	// arrange brings the words of a packed panel into the order that tile reads. It is nil if tile reads the order that
	// type panels describes.
	arrange func(panel []float32)
	// narrow rounds the values to the nearest bfloat16. It writes a zero after an odd number of values. The slice out
	// may be the memory of the slice in.
	narrow func(out []uint16, in []float32)
	// packValues packs n rows of values, which have stride ld, as panels of V, in the order that type panels describes.
	packValues func(p *panels, values []uint16, ld, n int)
}

// arrangePanel brings the words of the panel with this index into the order that v.tile reads, from the order that type
// panels describes.
func (v *pairVariant) arrangePanel(p *panels, index int) {
	if v.arrange == nil {
		return
	}
	for k := range p.blocks() {
		v.arrange(p.panel(k, index))
	}
}

// arrangePanels arranges all panels of p (see arrangePanel).
func (v *pairVariant) arrangePanels(p *panels) {
	for i := range p.count {
		v.arrangePanel(p, i)
	}
}

// tileFunc computes, for each of the given rows r and the n·16 columns c of n neighbouring panels with k inner rows
// each,
//
//	out[r·ldout + c] = Σ_i a[r·lda + i] · panel[(⌊c/16⌋·k + i)·16 + c mod 16] + bias[c] + add[r·ldadd + c]
//
// If bias or add is nil, its term is omitted. The slice add may be the same memory as the slice out. k is at most
// blockK. Each sum has one accumulator. The terms of a sum are added in the order of i, whatever rows and n are.
type tileFunc func(out []float32, ldout int, add []float32, ldadd int, bias []float32, a []float32, lda, rows int, panel []float32, k, n int)

// portable returns the variant in plain Go, which every machine can run.
func portable() *variant {
	return &variant{
		name: "portable", panels: 1, tile: tilePortable, widen: widen,
		packKeys: packKeys, packValues: packValues, scoreMax: scoreMax, scoreExp: scoreExp,
		gelu: geluRow, gateGELU: gateGELURow, scale: scaleRows, add: addTo, normalize: normalize, rotate: rotateRow,
		pairs: pairVariant{tile: tilePairs, narrow: narrow, packValues: packPairs},
	}
}

// activation returns the function that computes activation a. The function apply computes in place. The function gate
// multiplies its argument up by a function of its argument in. Identity has neither function, and every other
// activation has one of the two.
func (v *variant) activation(a kernels.Activation) (apply func(x []float32), gate func(out, in, up []float32), err error) {
	switch a {
	case kernels.Identity:
		return nil, nil, nil
	case kernels.GELU:
		return v.gelu, nil, nil
	case kernels.GEGLU:
		return nil, v.gateGELU, nil
	}
	return nil, nil, fmt.Errorf("no code for %s: %w", a, kernels.ErrUnsupported)
}

// best returns the fastest variant that this machine can run.
func best() *variant {
	list := variants()
	return list[len(list)-1]
}
