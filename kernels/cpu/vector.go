//go:build (amd64 || arm64) && !noasm

package cpu

import (
	"math"
	"unsafe"
)

// vector wraps the assembly of row operations for one instruction set in methods that check lengths, because the
// assembly does not.
type vector struct {
	lanes       int
	gelu        func(x *float32, n int)
	gateGELU    func(out *float32, in *float32, up *float32, n int)
	scoreMax    func(row *float32, ld int, rows int, n int, scale float32, slope float32, position float32, maxima *float32)
	scoreExp    func(row *float32, ld int, rows int, n int, scale float32, slope float32, position float32, maxima *float32, sums *float32)
	scale       func(out *float32, ldout int, in *float32, ldin int, rows int, n int, factors *float32)
	add         func(out *float32, in *float32, n int)
	sum         func(x *float32, n int) float64
	squares     func(x *float32, n int, mean float64) float64
	standardize func(x *float32, gain *float32, bias *float32, n int, mean float32, rest float32, scale float32)
	rotate      func(row *float32, cos *float32, sin *float32, half int, heads int, scale float32)

	side      int // number of rows that transpose processes, and of columns that it processes at a time
	transpose func(panel *float32, rows *float32, ld int, count int, k int)
	copy16    func(panel *float32, rows *float32, ld int, count int)
	widen     func(out *float32, half *uint16, n int)
}

func (v vector) variant(name string, panels int, t tiles) *variant {
	return &variant{
		name: name, panels: panels, tile: t.run, widen: v.widenBF16,
		pairs:    pairVariant{tile: tilePairs, narrow: narrow, packValues: packPairs},
		packKeys: v.packKeys, packValues: v.packValues,
		scoreMax: func(rows []float32, ld, n int, scale, slope, position float32, maxima []float32) {
			_ = rows[(len(maxima)-1)*ld+v.padded(n)-1]
			v.scoreMax(&rows[0], ld, len(maxima), n, scale, slope, position, &maxima[0])
		},
		scoreExp: func(rows []float32, ld, n int, scale, slope, position float32, maxima, sums []float32) {
			_ = rows[(len(maxima)-1)*ld+v.padded(n)-1]
			v.scoreExp(&rows[0], ld, len(maxima), n, scale, slope, position, &maxima[0], &sums[:len(maxima)][0])
		},
		scale: func(out []float32, ldout int, in []float32, ldin, n int, factors []float32) {
			last := len(factors) - 1
			_, _ = out[last*ldout+n-1], in[last*ldin+n-1]
			v.scale(&out[0], ldout, &in[0], ldin, len(factors), n, &factors[0])
		},
		gelu: func(x []float32) { v.gelu(&x[0], len(x)) },
		gateGELU: func(out, in, up []float32) {
			n := len(out)
			v.gateGELU(&out[0], &in[:n][0], &up[:n][0], n)
		},
		add:       func(out, in []float32) { v.add(&out[0], &in[:len(out)][0], len(out)) },
		normalize: v.normalize,
		rotate: func(row, cos, sin []float32, factor float32) {
			half := len(cos)
			v.rotate(&row[0], &cos[0], &sin[:half][0], half, len(row)/(2*half), factor)
		},
	}
}

// padded returns n rounded up to whole vectors.
func (v vector) padded(n int) int { return (n + v.lanes - 1) &^ (v.lanes - 1) }

// normalize applies a LayerNorm to one row in place, with statistics in float64.
func (v vector) normalize(row, gain, bias []float32, eps float32) {
	n := len(row)
	whole := n &^ (v.lanes - 1)
	sum, squares := 0.0, 0.0
	if whole > 0 {
		sum = v.sum(&row[0], whole)
	}
	for _, x := range row[whole:] {
		sum += float64(x)
	}
	mean := sum / float64(n)
	if whole > 0 {
		squares = v.squares(&row[0], whole, mean)
	}
	for _, x := range row[whole:] {
		d := float64(x) - mean
		squares += d * d
	}
	scale := 1 / math.Sqrt(squares/float64(n)+float64(eps))
	// The mean is split into two float32 values. If the mean were rounded to a single float32, small differences from a
	// large mean would lose their last bits.
	high := float32(mean)
	v.standardize(&row[0], &gain[:n][0], &bias[:n][0], n, high, float32(mean-float64(high)), float32(scale))
}

func (v vector) widenBF16(out []float32, half []uint16) {
	whole := len(out) &^ 15
	if whole > 0 {
		v.widen(&out[0], &half[:whole][0], whole)
	}
	widen(out[whole:], half[whole:])
}

// packKeys packs the keys, which have stride ld, as panels of Kᵀ. The assembly transposes v.side keys at a time. If
// p.inner is not a multiple of v.side, packKeys packs in plain Go. p.inner is the head size, or half of it for pairs of
// bfloat16.
func (v vector) packKeys(p *panels, keys []float32, ld int) {
	for i := range p.count {
		first := i * panelCols
		rows := keys[first*ld:]
		n := min(panelCols, p.cols-first)
		if p.inner%v.side != 0 {
			p.fill(i, rows, ld)
			continue
		}
		_ = rows[(n-1)*ld+p.inner-1]
		for k := range p.blocks() {
			from, to := p.block(k)
			panel := p.panel(k, i)
			for column := 0; column < panelCols; column += v.side {
				// Columns that have no keys contain the last key instead.
				row := min(column, n-1)
				v.transpose(&panel[column], &rows[row*ld+from], ld, min(v.side, n-row), to-from)
			}
		}
	}
}

func (v vector) packValues(p *panels, values []float32, ld int) {
	if p.cols%panelCols != 0 {
		packValues(p, values, ld)
		return
	}
	_ = values[(p.inner-1)*ld+p.cols-1]
	for k := range p.blocks() {
		from, to := p.block(k)
		for i := range p.count {
			v.copy16(&p.panel(k, i)[0], &values[from*ld+i*panelCols], ld, to-from)
		}
	}
}

// pairVector wraps the assembly for pairs of bfloat16 in methods that check lengths, because the assembly does not.
type pairVector struct {
	round func(out *uint16, in *float32, n int)
	rest  func(out []uint16, in []float32) // does the same as round in plain Go, for any number of values
	pair  func(panel *uint32, rows *uint16, ld int, count int)
}

// narrow rounds values to bfloat16: 16 at a time in assembly, and the rest in plain Go.
func (v pairVector) narrow(out []uint16, in []float32) {
	whole := len(in) &^ 15
	if whole > 0 {
		v.round(&out[:whole][0], &in[0], whole)
	}
	v.rest(out[whole:], in[whole:])
}

// packValues packs n rows of bfloat16 values, which have stride ld, as panels of pairs. It packs in plain Go if the
// last panel is not full.
func (v pairVector) packValues(p *panels, values []uint16, ld, n int) {
	if p.cols%panelCols != 0 {
		packPairs(p, values, ld, n)
		return
	}
	_ = values[(n-1)*ld+p.cols-1]
	for k := range p.blocks() {
		from, to := p.block(k)
		whole := min(to, n/2) - from
		for i := range p.count {
			panel := p.panel(k, i)
			column := values[2*from*ld+i*panelCols:]
			if whole > 0 {
				v.pair((*uint32)(unsafe.Pointer(&panel[0])), &column[0], ld, whole)
			}
			if from+whole < to { // the number of rows is odd: the last row is paired with zeros
				row := halves(panel[whole*panelCols:][:panelCols])
				clear(row)
				for c, v := range column[2*whole*ld:][:panelCols] {
					row[2*c] = v
				}
			}
		}
	}
}
