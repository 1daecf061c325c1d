// Package peak measures how fast one core of this machine multiplies and adds
// when nothing else holds it back: what a kernel's speed is a share of.
package peak

import "time"

// Rate is the best rate of float32 FMAs, in GFLOP/s, that one core reached in
// a few tries with the vectors of an instruction set, "avx2" or "avx512". It
// is 0 for any other, and where there is no assembly.
func Rate(set string) float64 {
	loop, lanes := fma(set)
	if loop == nil {
		return 0
	}
	const rounds, tries = 200_000, 8 // some 0.3 ms each
	best := time.Duration(1<<63 - 1)
	for range tries {
		start := time.Now()
		loop(rounds)
		best = min(best, time.Since(start))
	}
	return rounds * 12 * float64(lanes) * 2 / float64(best.Nanoseconds())
}
