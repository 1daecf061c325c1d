//go:build !linux && !darwin && !noasm

package cpu

// hasBFMMLA returns false: on this system nothing tells whether the processor can multiply bfloat16 (BFMMLA).
func hasBFMMLA() bool { return false }
