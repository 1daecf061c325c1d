//go:build !linux && !darwin && !noasm

package cpu

// hasBFMMLA returns false, so that bfloat16 is not multiplied on this system.
func hasBFMMLA() bool { return false }
