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
			for h := range 2 * o.Heads { // the heads of the queries, then of the keys
				scale := o.QScale
				if h >= o.Heads {
					scale = 1
				}
				turn(row[h*2*half:(h+1)*2*half], cos, sin, scale)
			}
		}
	})
}

// turn scales and rotates one head in place.
func turn(z, cos, sin []float32, scale float32) {
	half := len(cos)
	low, high := z[:half], z[half:2*half]
	sin = sin[:half]
	for j, c := range cos {
		a, b := low[j]*scale, high[j]*scale
		low[j] = float32(a*c) - float32(b*sin[j])
		high[j] = float32(b*c) + float32(a*sin[j])
	}
}
