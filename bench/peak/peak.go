// Package peak measures how many fused multiply-adds (FMA) one core can compute per second. The speed of kernels is
// compared with this rate.
package peak

import "time"

// Rate returns the rate of fused multiply-adds of one core, in GFLOP/s, the best of eight tries. set is the instruction
// set: "avx2", "avx512" or "neon" for float32, or "bf16" for bfloat16. Rate returns 0 for other sets, and for sets that
// this machine or build lacks.
func Rate(set string) float64 {
	loop, perRound := fma(set)
	if loop == nil {
		return 0
	}
	const rounds, tries = 200_000, 8 // each try takes about a millisecond or less
	best := time.Duration(1<<63 - 1)
	for range tries {
		start := time.Now()
		loop(rounds)
		best = min(best, time.Since(start))
	}
	return rounds * float64(perRound) * 2 / float64(best.Nanoseconds())
}
