package cpu

import (
	"math"
	"slices"

	"seqembed/kernels"
)

// rotaryTable holds the cosines and sines of every position and frequency
// that a stream has met, [positions, frequencies] each.
type rotaryTable struct {
	invFreq  []float32
	cos, sin []float32
}

// cover extends the table to that many positions.
func (a *rotaryTable) cover(invFreq []float32, positions int) {
	if !slices.Equal(a.invFreq, invFreq) {
		*a = rotaryTable{invFreq: slices.Clone(invFreq)}
	}
	for i := len(a.cos) / len(invFreq); i < positions; i++ {
		for _, f := range invFreq {
			sin, cos := math.Sincos(float64(float32(i) * f))
			a.cos, a.sin = append(a.cos, float32(cos)), append(a.sin, float32(sin))
		}
	}
}

func (s *stream) Rotary(o kernels.Rotary) {
	if !s.accepts(o) {
		return
	}
	defer s.clock(o)()
	longest := 0
	for q := range s.batch.Sequences() {
		longest = max(longest, s.batch.Len(q))
	}
	s.angles.cover(o.InvFreq, longest)
	half := len(o.InvFreq)
	s.crew.run(s.batch.Sequences(), func(_, q int) {
		first := int(s.batch.CuSeqlens[q])
		for i := range s.batch.Len(q) {
			row := of(o.QKV).row(first + i)
			cos, sin := s.angles.cos[i*half:][:half], s.angles.sin[i*half:][:half]
			width := o.Heads * 2 * half
			s.variant.turn(row[:width], cos, sin, o.QScale)
			s.variant.turn(row[width:2*width], cos, sin, 1)
		}
	})
}

// turn scales and rotates the heads of a row in place.
func turn(row, cos, sin []float32, factor float32) {
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
