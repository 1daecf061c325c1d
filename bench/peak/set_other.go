//go:build !amd64 || noasm

package peak

// fma returns nil: there is no assembly.
func fma(string) (loop func(n int), lanes int) { return nil, 0 }
