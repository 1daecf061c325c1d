//go:build !noasm

package cpu

import "golang.org/x/sys/unix"

// hasBFMMLA reports whether the processor supports FEAT_BF16. Systems that do not know the name run on processors
// without it.
func hasBFMMLA() bool {
	supported, err := unix.SysctlUint32("hw.optional.arm.FEAT_BF16")
	return err == nil && supported != 0
}
