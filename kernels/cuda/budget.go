package cuda

import (
	"fmt"

	"seqembed/kernels"
)

const (
	// budgetCap is the most tokens of a batch that Budget gives. The largest
	// products have enough tiles for every multiprocessor well before it, so
	// that more tokens would only cost memory and delay the first result.
	budgetCap = 32768

	// budgetShare of the memory that is free goes to a batch; the rest is for
	// what the driver and cuBLAS allocate by themselves and for fragmentation.
	budgetShare = 0.9

	// budgetReserve is set aside for what does not grow with the batch: the
	// workspace of a stream and its tables.
	budgetReserve = workspaceBytes + 64<<20

	// bookkeepingBytes is what a stream keeps for a token besides its
	// activations: position, sequence, and, twice, id and its share of the
	// list of attention blocks; and for each sequence, of which there are at
	// most as many as tokens, scale, and, twice, cu_seqlens, range and block.
	bookkeepingBytes = 2*4 + 2*(4+8) + 4 + 2*(4+8+8)
)

// BytesPerToken is what a stream on this backend holds for a token:
//
//	4 · residual columns + (2, or 4 in fp32) · operand columns + bookkeeping
//
// where columns are summed over the buffers, each rounded up to 8, and a
// buffer of both kinds counts in both (once in fp32). With cuBLAS the columns
// of the widest product that is gated are operand columns, too.
func (b *Backend) BytesPerToken(residualCols, operandCols, gatedCols int) int {
	if b.products != nil {
		operandCols += gatedCols
	}
	return 4*residualCols + b.dtype.size()*operandCols + bookkeepingBytes
}

// Budget is the default number of tokens in a batch, special tokens included,
// for a stream whose buffers have that many columns in all of each kind, and
// whose widest product that is gated has gatedCols:
//
//	min(budgetCap, (0.9 · free memory − reserve) / BytesPerToken)
//
// It is to be asked after the weights have been loaded.
func (b *Backend) Budget(residualCols, operandCols, gatedCols int) (int, error) {
	free, _, err := b.device.memory()
	if err != nil {
		return 0, err
	}
	perToken := b.BytesPerToken(residualCols, operandCols, gatedCols)
	tokens := int((float64(free)*budgetShare - budgetReserve) / float64(perToken))
	if tokens < 1 {
		return 0, fmt.Errorf("%s: %s free do not hold a single token: %w", b.device.Name, gigabytes(free), kernels.ErrOutOfMemory)
	}
	return min(tokens, budgetCap), nil
}
