package cuda

import (
	"cmp"
	"slices"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// tables describes the current batch in device memory. It is allocated once, for the largest batch that the limits
// allow. The part that the host sends is a double buffer, so that a batch can be sent while the previous one computes.
// T stands for the largest number of tokens and S for the largest number of sequences.
type tables struct {
	pos     driver.Pointer // int32 [T], the position of each token in its sequence
	seq     driver.Pointer // int32 [T], the index of each token's sequence
	scale   driver.Pointer // float32 [S], the factor by which Embed multiplies the rows of each sequence
	buffers [2]buffer
	*buffer // the buffer of the current batch

	pooled    []kernels.Range // the distinct ranges that the program pools
	maxBlocks int
	order     []int   // workspace of the method cut
	list      []int32 // workspace of the methods cut and rows
}

// buffer is one half of the double buffer. It contains the values that the host sends for one batch.
type buffer struct {
	ids    driver.Pointer   // int32 [T], the token ids
	cu     driver.Pointer   // int32 [S+1], cu_seqlens: the offset of each sequence
	blocks driver.Pointer   // int2 [maxBlocks], blocks of query rows for attention (see tables.cut)
	ranges []driver.Pointer // for each range in tables.pooled, int2 [S]: the rows of each sequence (see tables.rows)

	read gpu.Event // happens when the last kernel that reads this buffer has finished
}

// ranges returns the distinct Range operations of a program, each of which selects the rows to average.
func ranges(p *kernels.Program) (list []kernels.Range) {
	for _, op := range p.Ops() {
		if o, ok := op.Do.(kernels.Range); ok && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

func newTables(c *gpu.Context, r *gpu.Resources, l kernels.Limits, pooled []kernels.Range) *tables {
	t := &tables{pooled: pooled}
	t.buffer = &t.buffers[0]
	t.maxBlocks = l.Tokens/attentionRows + l.Sequences // each sequence has at most one block that is not full
	t.pos, t.seq = r.Alloc(c, 4*l.Tokens), r.Alloc(c, 4*l.Tokens)
	t.scale = r.Alloc(c, 4*l.Sequences)
	for i := range t.buffers {
		h := &t.buffers[i]
		h.ids, h.cu = r.Alloc(c, 4*l.Tokens), r.Alloc(c, 4*(l.Sequences+1))
		h.blocks = r.Alloc(c, 8*t.maxBlocks)
		for range pooled {
			h.ranges = append(h.ranges, r.Alloc(c, 8*l.Sequences))
		}
		h.read = r.NewEvent(c)
	}
	return t
}

// begin sends the batch's ids, cu_seqlens, attention blocks and pooled rows from pinned memory to the device, while the
// previous batch computes.
func (s *submission) begin() {
	t, b := s.tables, s.batch
	if s.loaded.At == nil {
		// The size suffices for the largest batch that the limits allow, so memory is pinned only once.
		bytes := 4*s.limits.Tokens + 4*(s.limits.Sequences+1) + 8*t.maxBlocks + 8*s.limits.Sequences*len(t.pooled)
		s.loaded = s.resources.Pin(s.Context, bytes)
	}
	t.swap(s.Context, s.compute, s.loads)
	sent := 0 // number of bytes sent
	send := func(to driver.Pointer, values []int32) {
		if s.Err != nil {
			return // pinning the memory may have failed
		}
		copy(gpu.View[int32](s.loaded, sent, len(values)), values)
		s.Upload(to, s.loaded, sent, 4*len(values), s.loads)
		sent += 4 * len(values)
	}
	send(t.ids, b.IDs)
	send(t.cu, b.CuSeqlens)
	blocks := t.cut(b)
	s.blocks = len(blocks) / 2
	send(t.blocks, blocks)
	for i, o := range t.pooled {
		send(t.ranges[i], t.rows(b, o))
	}
	s.Order(s.loads, s.compute, s.fence)
	s.launch(s.positions, b.Sequences(), 0, gpu.Ptr(t.pos), gpu.Ptr(t.seq), gpu.Ptr(t.cu))
}

// swap selects the other half of the double buffer for the next batch. The batch before the previous one used that
// half, so swap makes the upload stream (loads) wait until that batch has run.
func (t *tables) swap(c *gpu.Context, compute, loads gpu.Stream) {
	c.Record(t.read, compute)
	other := &t.buffers[0]
	if t.buffer == other {
		other = &t.buffers[1]
	}
	t.buffer = other
	c.Await(loads, other.read)
}

// cut divides a batch into blocks of query rows for the attention kernel. It returns two numbers for each block: the
// index of its sequence, and its first query row within the sequence. The longest sequences come first, because their
// blocks take longest; the order does not change any result.
func (t *tables) cut(b kernels.Batch) []int32 {
	t.order, t.list = t.order[:0], t.list[:0]
	for i := range b.Sequences() {
		t.order = append(t.order, i)
	}
	slices.SortStableFunc(t.order, func(x, y int) int { return cmp.Compare(b.Len(y), b.Len(x)) })
	for _, s := range t.order {
		for first := 0; first < b.Len(s); first += attentionRows {
			t.list = append(t.list, int32(s), int32(first))
		}
	}
	return t.list
}

// rows returns the rows that a range selects in each sequence of a batch, as two numbers: the first row, and the row
// after the last.
func (t *tables) rows(b kernels.Batch, o kernels.Range) []int32 {
	t.list = t.list[:0]
	for i := range b.Sequences() {
		from, to := o.Of(b.Len(i))
		t.list = append(t.list, b.CuSeqlens[i]+int32(from), b.CuSeqlens[i]+int32(to))
	}
	return t.list
}
