package cuda

import (
	"fmt"

	"seqembed/kernels"
)

const (
	// budgetCap is the largest number of tokens that Budget returns. A batch of so many tokens keeps every
	// multiprocessor busy. More tokens would only cost memory and delay the first result.
	budgetCap = 32768

	// budgetShare is the share of the device's free memory that a runner may use. The rest is for allocations of the
	// driver and of cuBLAS, and for fragmentation.
	budgetShare = 0.9

	// budgetReserve is the number of bytes that a runner may use for memory that does not grow with the batch, such as
	// the workspace for cuBLAS.
	budgetReserve = workspaceBytes + 64<<20

	// bookkeepingBytes is the size in bytes of the tables (type tables) for each token, as if every token were a
	// sequence. The first term is for the fields pos and seq, the second for ids and one entry of blocks in both
	// buffers, the third for scale, and the last for cu and a second entry of blocks in both buffers.
	bookkeepingBytes = 2*4 + 2*(4+8) + 4 + 2*(4+8)
	// rangeBytes is the size in bytes of one sequence's entries in buffer.ranges, for one range and in both buffers.
	rangeBytes = 2 * 8
)

// BytesPerToken returns the device memory in bytes that a runner of p needs for each token that its limits allow: a row
// of each slot with one row per token, a third of a row of each slot with one row per sequence, a row of each table of
// rotations, and the tables for a batch. A slot is memory that several values of the program use one after the other.
func (b *Backend) BytesPerToken(p *kernels.Program) int {
	bytes := bookkeepingBytes + rangeBytes*len(ranges(p))
	for _, s := range p.Plan(b.needs(p)).Slots {
		wide, narrow := b.slotBytes(s)
		row := wide + narrow
		if s.PerSequence {
			row = ceilDiv(row, 3) // a sequence of a model has at least three tokens, two of them special
		}
		bytes += row
	}
	rotations := map[string]int{}
	for _, op := range p.Ops() {
		if o, ok := op.Do.(kernels.Attention); ok && o.Rotary != nil {
			rotations[fmt.Sprint(o.Rotary.InvFreq)] = 8 * len(o.Rotary.InvFreq)
		}
	}
	for _, row := range rotations {
		bytes += row
	}
	return bytes
}

// Budget returns the default number of tokens in a batch of p, including special tokens:
//
//	min(budgetCap, (0.9 · free memory − budgetReserve) / BytesPerToken)
//
// The weights must have been loaded before, because they reduce the free memory.
func (b *Backend) Budget(p *kernels.Program) (int, error) {
	free, err := b.device.Memory()
	if err != nil {
		return 0, err
	}
	tokens := int((float64(free)*budgetShare - budgetReserve) / float64(b.BytesPerToken(p)))
	if tokens < 1 {
		return 0, fmt.Errorf("%s: %d bytes free do not hold a single token: %w", b.device.Name, free, kernels.ErrOutOfMemory)
	}
	return min(tokens, budgetCap), nil
}
