package cpu

import (
	"math"
	"slices"

	"seqembed/kernels"
)

// rotaryTable holds the cosines and sines of every position and frequency
// that a runner has met, [positions, frequencies] each.
type rotaryTable struct {
	invFreq  []float32
	cos, sin []float32
}

// rotation gives the table of some frequencies, nil for nil. The blocks of a
// model usually share one.
func (s *runner) rotation(o *kernels.Rotary) *rotaryTable {
	if o == nil {
		return nil
	}
	for _, a := range s.angles {
		if slices.Equal(a.invFreq, o.InvFreq) {
			return a
		}
	}
	a := &rotaryTable{invFreq: o.InvFreq}
	s.angles = append(s.angles, a)
	return a
}

// cover extends the table to that many positions.
func (a *rotaryTable) cover(positions int) {
	for i := len(a.cos) / len(a.invFreq); i < positions; i++ {
		for _, f := range a.invFreq {
			sin, cos := math.Sincos(float64(float32(i) * f))
			a.cos, a.sin = append(a.cos, float32(cos)), append(a.sin, float32(sin))
		}
	}
}

// rotate gives n rows of one head, ld values apart, the first of them at a
// position, scaled and rotated in the worker's own memory: [n, d], tight.
func (s *runner) rotate(worker int, angles *rotaryTable, rows []float32, ld, n, position int, factor float32) []float32 {
	half := len(angles.invFreq)
	d := 2 * half
	own := &s.scratch[worker]
	if len(own.rotated) < n*d {
		own.rotated = aligned(n * d)
	}
	for i := range n {
		row := own.rotated[i*d:][:d]
		copy(row, rows[i*ld:])
		at := (position + i) * half
		s.variant.turn(row, angles.cos[at:at+half], angles.sin[at:at+half], factor)
	}
	return own.rotated
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
