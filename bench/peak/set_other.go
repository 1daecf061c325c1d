//go:build (!amd64 && !arm64) || noasm

package peak

// fma returns nil, because this build has no assembly.
func fma(string) (loop func(n int), perRound int) { return nil, 0 }
