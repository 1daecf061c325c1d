//go:build !noasm

package cpu

import "golang.org/x/sys/unix"

// Type of an entry of the auxiliary vector, and a bit of its value, of Linux' include/uapi/linux/auxvec.h and
// arch/arm64/include/uapi/asm/hwcap.h.
const (
	hwcap2     = 26
	hwcap2BF16 = 1 << 14
)

// hasBFMMLA reports whether the processor and the system support FEAT_BF16.
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
