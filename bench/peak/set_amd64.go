//go:build amd64 && !noasm

package peak

import "golang.org/x/sys/cpu"

// fma returns the loop for an instruction set, and the number of multiply-adds in one instruction. If the set is
// unknown, or this machine lacks it, fma returns nil.
func fma(set string) (loop func(n int), lanes int) {
	switch {
	case set == "avx2" && cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return fmaAVX2, 8
	case set == "avx512" && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ:
		return fmaAVX512, 16
	case set == "bf16" && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BF16:
		return fmaBF16, 2 * 16
	}
	return nil, 0
}
