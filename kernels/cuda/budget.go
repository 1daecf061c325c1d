package cuda

import (
	"fmt"

	"seqembed/kernels"
)

const (
	// budgetCap is the most tokens of a batch that Budget gives. The largest products have enough tiles for every
	// multiprocessor well before it, so that more tokens would only cost memory and delay the first result.
	budgetCap = 32768

	// budgetShare of the memory that is free goes to a batch; the rest is for allocations of the driver and cuBLAS and
	// for fragmentation.
	budgetShare = 0.9

	// budgetReserve is set aside for memory that does not grow with the batch: the workspace of a runner and its
	// tables.
	budgetReserve = workspaceBytes + 64<<20

	// bookkeepingBytes is the memory of a runner for a token besides its activations: position, sequence, and, twice,
	// id and its share of the list of attention blocks; and for each sequence, of which there are at most as many as
	// tokens, scale, and, twice, cu_seqlens and block.
	bookkeepingBytes = 2*4 + 2*(4+8) + 4 + 2*(4+8)
	// rangeBytes is, twice, the rows of a sequence that are pooled.
	rangeBytes = 2 * 8
)

// BytesPerToken is the memory of a runner of a program on this backend for a token: the columns of each slot of its
// plan of one row a token, rounded up to 8, in the types that the slot has; a third of those of one row a sequence; the
// tables of rotations; and bookkeeping, as if every token were a sequence.
func (b *Backend) BytesPerToken(p *kernels.Program) int {
	bytes := bookkeepingBytes + rangeBytes*len(ranges(p))
	for _, s := range p.Plan(b.needs(p)).Slots {
		row := 0
		if s.Precision&kernels.Float32 != 0 {
			row += 4 * pitch(s.Cols)
		}
		if s.Precision&kernels.Operand != 0 {
			row += b.dtype.size() * pitch(s.Cols)
		}
		if s.PerSequence {
			row = ceilDiv(row, 3) // a sequence has at least three tokens, but for the last of a batch
		}
		bytes += row
	}
	tables := map[string]bool{}
	for _, op := range p.Ops() {
		if o, ok := op.Do.(kernels.Attention); ok && o.Rotary != nil {
			tables[string(floatBytes(o.Rotary.InvFreq))] = true
		}
	}
	for key := range tables {
		bytes += 2 * len(key)
	}
	return bytes
}

// Budget is the default number of tokens in a batch, special tokens included, for a program:
//
//	min(budgetCap, (0.9 · free memory − reserve) / BytesPerToken)
//
// It is to be asked after the weights have been loaded.
func (b *Backend) Budget(p *kernels.Program) (int, error) {
	free, _, err := b.device.Memory()
	if err != nil {
		return 0, err
	}
	tokens := int((float64(free)*budgetShare - budgetReserve) / float64(b.BytesPerToken(p)))
	if tokens < 1 {
		return 0, fmt.Errorf("%s: %d bytes free do not hold a single token: %w", b.device.Name, free, kernels.ErrOutOfMemory)
	}
	return min(tokens, budgetCap), nil
}
