//go:build (!amd64 && !arm64) || noasm

package cpu

// variants returns the variants that this machine can run.
func variants() []*variant { return []*variant{portable()} }
