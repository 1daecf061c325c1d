//go:build !noasm

package cpu

import "golang.org/x/sys/unix"

// hasBFMMLA reports whether the processor supports FEAT_BF16, the extension of ARMv8 with the instruction BFMMLA. It
// returns false on a version of macOS that does not report the extension.
func hasBFMMLA() bool {
	supported, err := unix.SysctlUint32("hw.optional.arm.FEAT_BF16")
	return err == nil && supported != 0
}
