package cuda

import (
	"cmp"
	"slices"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// tables is the device's memory for the description of a batch, allocated once for the limits. The pointers lie in one
// allocation, each on 256 bytes.
//
// The part that the host sends is there twice, so that one batch is sent while the one before it computes.
type tables struct {
	at     driver.Pointer
	pos    driver.Pointer // int32 [T], the position of each token in its sequence
	seq    driver.Pointer // int32 [T], its sequence
	scale  driver.Pointer // float32 [S], of an Embed
	halves [2]half
	*half  // of the batch of the moment

	pooled    []kernels.Range // the different ones of a program
	maxBlocks int
	order     []int // scratch of cut
	list      []attentionBlock
}

// half is the part that the host sends for one batch: a half of a double buffer.
type half struct {
	ids    driver.Pointer   // int32 [T]
	cu     driver.Pointer   // int32 [S+1]
	blocks driver.Pointer   // int2 [maxBlocks], of an Attention
	ranges []driver.Pointer // int2 [S], of each range that is pooled

	read gpu.Event // all readers of this half, before the other took over, have run
}

// ranges lists the different ranges that a program pools.
func ranges(p *kernels.Program) (list []kernels.Range) {
	for _, op := range p.Ops() {
		if o, ok := op.Do.(kernels.Range); ok && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

// index is the number of a range.
func (t *tables) index(o kernels.Range) int { return slices.Index(t.pooled, o) }

func newTables(c *gpu.Context, l kernels.Limits, pooled []kernels.Range) (*tables, error) {
	t := &tables{pooled: pooled}
	t.half = &t.halves[0]
	// Each sequence has at most one block that is not full.
	t.maxBlocks = l.Tokens/attentionRows + l.Sequences
	type part struct {
		p     *driver.Pointer
		bytes int
	}
	parts := []part{{&t.pos, 4 * l.Tokens}, {&t.seq, 4 * l.Tokens}, {&t.scale, 4 * l.Sequences}}
	for i := range t.halves {
		h := &t.halves[i]
		parts = append(parts, part{&h.ids, 4 * l.Tokens}, part{&h.cu, 4 * (l.Sequences + 1)},
			part{&h.blocks, 8 * t.maxBlocks})
		h.ranges = make([]driver.Pointer, len(pooled))
		for k := range h.ranges {
			parts = append(parts, part{&h.ranges[k], 8 * l.Sequences})
		}
	}
	total := 0
	for _, part := range parts {
		total += (part.bytes + 255) &^ 255
	}
	var err error
	if t.at, err = c.Alloc(total); err != nil {
		return t, err
	}
	at := t.at
	for _, part := range parts {
		*part.p = at
		at += driver.Pointer((part.bytes + 255) &^ 255)
	}
	for i := range t.halves {
		if t.halves[i].read, err = c.NewEvent(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// swap selects the other half of the double buffer for the next batch. loads, on which that is sent, waits until the
// batch before last, which used the same half, has run.
func (t *tables) swap(c *gpu.Context, compute, loads gpu.Stream) error {
	err := c.Record(t.read, compute)
	other := &t.halves[0]
	if t.half == other {
		other = &t.halves[1]
	}
	t.half = other
	return cmp.Or(err, c.Await(loads, other.read))
}

// free gives everything back; nil is nothing.
func (t *tables) free(c *gpu.Context) {
	if t == nil {
		return
	}
	c.Free(t.at)
	for _, h := range t.halves {
		c.FreeEvent(h.read)
	}
}

// attentionBlock is the work of one block of the attention kernel: query rows of a sequence from the first on, counted
// in the sequence.
type attentionBlock struct{ sequence, first int32 }

// cut gives the blocks of the queries of a batch, until it is called again. The longest sequences come first, because
// their blocks take longest; the order changes no result.
func (t *tables) cut(b kernels.Batch) []attentionBlock {
	t.order, t.list = t.order[:0], t.list[:0]
	for i := range b.Sequences() {
		t.order = append(t.order, i)
	}
	slices.SortStableFunc(t.order, func(x, y int) int { return cmp.Compare(b.Len(y), b.Len(x)) })
	for _, s := range t.order {
		for first := 0; first < b.Len(s); first += attentionRows {
			t.list = append(t.list, attentionBlock{int32(s), int32(first)})
		}
	}
	return t.list
}
