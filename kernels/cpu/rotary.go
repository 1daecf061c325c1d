package cpu

import (
	"math"
	"slices"

	"seqembed/kernels"
)

// rotaryTable caches the cosines and the sines of rotary embeddings, each [positions, frequencies]. It has a row for
// each position of the longest sequence so far.
type rotaryTable struct {
	invFreq  []float32
	cos, sin []float32
}

// rotation returns the table for the frequencies of o. Operations with the same frequencies share a table; the blocks
// of a model usually have the same frequencies.
func (a *attentionScratch) rotation(o *kernels.Rotary) *rotaryTable {
	for _, t := range a.angles {
		if slices.Equal(t.invFreq, o.InvFreq) {
			return t
		}
	}
	t := &rotaryTable{invFreq: o.InvFreq}
	a.angles = append(a.angles, t)
	return t
}

// cover extends the table to the given number of positions.
func (a *rotaryTable) cover(positions int) {
	for i := len(a.cos) / len(a.invFreq); i < positions; i++ {
		for _, f := range a.invFreq {
			sin, cos := math.Sincos(float64(float32(i) * f))
			a.cos, a.sin = append(a.cos, float32(cos)), append(a.sin, float32(sin))
		}
	}
}

// rotate returns a function that scales the queries of qkv and rotates its queries and keys. If to is qkv, the function
// works in place. If to is another matrix, the function writes the rotated queries and keys to it and copies the
// values.
func (s *runner) rotate(o *kernels.Rotary, to, qkv *matrix) func() {
	angles := s.heads.rotation(o)
	half, width := len(o.InvFreq), qkv.cols/3
	each := s.eachSequence(func(worker, q int) {
		first := int(s.batch.CuSeqlens[q])
		for i := range s.batch.Len(q) {
			row := s.scratch[worker].float32Row(to, first+i)
			switch {
			case s.bf16:
				s.variant.widen(row, qkv.halfRow(first+i))
			case to != qkv:
				copy(row, qkv.row(first+i))
			}
			cos, sin := angles.cos[i*half:][:half], angles.sin[i*half:][:half]
			s.variant.rotate(row[:width], cos, sin, o.QScale)
			s.variant.rotate(row[width:2*width], cos, sin, 1)
			s.variant.round(to, first+i, 0, row)
		}
	})
	return func() {
		angles.cover(s.batch.Longest())
		each()
	}
}

// rotateRow scales and rotates the heads of a row in place.
func rotateRow(row, cos, sin []float32, factor float32) {
	half := len(cos)
	sin = sin[:half]
	for ; len(row) > 0; row = row[2*half:] {
		low, high := row[:half], row[half:2*half]
		for j, c := range cos {
			a, b := low[j]*factor, high[j]*factor
			low[j] = float32(a*c) - float32(b*sin[j])
			high[j] = float32(b*c) + float32(a*sin[j])
		}
	}
}
