//go:build !linux && !darwin && !noasm

package cpu

// hasBFMMLA returns false: on this system the package cannot find out whether the processor supports FEAT_BF16, the
// extension of ARMv8 with the instruction BFMMLA.
func hasBFMMLA() bool { return false }
