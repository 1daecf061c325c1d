//go:build arm64 && !noasm

package peak

// fma returns the loop for an instruction set, and the number of multiply-adds in one round. If the set is
// unknown, fma returns nil.
func fma(set string) (loop func(n int), perRound int) {
	if set == "neon" {
		return fmaNEON, 24 * 4
	}
	return nil, 0
}
