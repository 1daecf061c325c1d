//go:build amd64 && !noasm

package peak

import "golang.org/x/sys/cpu"

// chains is the number of instructions in a round of each loop.
const chains = 12

// fma returns the loop for an instruction set, and the number of multiply-adds in one round. If the set is unknown,
// or this machine lacks it, fma returns nil.
func fma(set string) (loop func(n int), perRound int) {
	switch {
	case set == "avx2" && cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return fmaAVX2, chains * 8
	case set == "avx512" && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ:
		return fmaAVX512, chains * 16
	case set == "bf16" && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BF16:
		return fmaBF16, chains * 2 * 16
	}
	return nil, 0
}
