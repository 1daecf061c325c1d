//go:build !amd64 || noasm

package cpu

// variants lists those that this machine can run.
func variants() []*variant { return []*variant{portable()} }
