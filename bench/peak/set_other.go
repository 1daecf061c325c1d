//go:build !amd64 || noasm

package peak

// fma has no loop to give.
func fma(string) (loop func(n int), lanes int) { return nil, 0 }
