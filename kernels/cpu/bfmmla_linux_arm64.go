//go:build !noasm

package cpu

import "golang.org/x/sys/unix"

// hwcap2 is the type of an entry of the auxiliary vector (AT_HWCAP2 in include/uapi/linux/auxvec.h). The value of this
// entry describes the processor. Its bit hwcap2BF16 stands for FEAT_BF16 (HWCAP2_BF16 in
// arch/arm64/include/uapi/asm/hwcap.h).
const (
	hwcap2     = 26
	hwcap2BF16 = 1 << 14
)

// hasBFMMLA reports whether the processor and the system support FEAT_BF16, the extension of ARMv8 with the instruction
// BFMMLA.
func hasBFMMLA() bool {
	entries, err := unix.Auxv()
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e[0] == hwcap2 {
			return e[1]&hwcap2BF16 != 0
		}
	}
	return false
}
