package cpu

import (
	"math"
	"slices"
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

// turned gives rows of one head, ld values apart, the first of them at a
// position, scaled and rotated in the worker's own memory: [rows, d], tight.
func (s *stream) turned(worker int, rows []float32, ld, n, d, position int, factor float32) []float32 {
	own := &s.scratch[worker]
	if len(own.turned) < n*d {
		own.turned = aligned(n * d)
	}
	half := d / 2
	for i := range n {
		row := own.turned[i*d:][:d]
		copy(row, rows[i*ld:])
		at := (position + i) * half
		s.variant.turn(row, s.angles.cos[at:at+half], s.angles.sin[at:at+half], factor)
	}
	return own.turned
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
