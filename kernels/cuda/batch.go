package cuda

import (
	"cmp"

	"seqembed/kernels/cuda/gpu"
)

// begin sends the batch's ids, its cu_seqlens, its list of attention blocks and the rows that it pools from pinned
// memory, while the batch before computes.
func (s *submission) begin() error {
	t, c, b := s.tables, s.context, s.batch
	blocks := t.cut(b)
	s.blocks = len(blocks)
	if s.loaded.At == nil {
		// The size is that of the limits, so that later batches fit as well.
		bytes := 4*s.limits.Tokens + 4*(s.limits.Sequences+1) + 8*t.maxBlocks + 8*s.limits.Sequences*len(t.pooled)
		var err error
		if s.loaded, err = c.Pin(bytes); err != nil {
			return err
		}
	}
	piece := s.loaded
	cuAt := 4 * len(b.IDs)
	blocksAt := cuAt + 4*len(b.CuSeqlens)
	rangesAt := blocksAt + 8*len(blocks)
	copy(piece.Int32s(0, len(b.IDs)), b.IDs)
	copy(piece.Int32s(cuAt, len(b.CuSeqlens)), b.CuSeqlens)
	list := piece.Int32s(blocksAt, 2*len(blocks))
	for i, block := range blocks {
		list[2*i], list[2*i+1] = block.sequence, block.first
	}
	err := cmp.Or(t.swap(c, s.compute, s.loads),
		c.Upload(t.ids, piece, 0, cuAt, s.loads),
		c.Upload(t.cu, piece, cuAt, blocksAt-cuAt, s.loads),
		c.Upload(t.blocks, piece, blocksAt, 8*len(blocks), s.loads))
	for i, o := range t.pooled {
		at, sequences := rangesAt+8*i*b.Sequences(), b.Sequences()
		list := piece.Int32s(at, 2*sequences)
		for q := range sequences {
			from, to := o.Of(b.Len(q))
			list[2*q], list[2*q+1] = b.CuSeqlens[q]+int32(from), b.CuSeqlens[q]+int32(to)
		}
		err = cmp.Or(err, c.Upload(t.ranges[i], piece, at, 8*sequences, s.loads))
	}
	if err = cmp.Or(err, c.Order(s.loads, s.compute, s.fence)); err != nil {
		return err
	}
	return s.launch(s.positions, b.Sequences(), 0, gpu.Ptr(t.pos), gpu.Ptr(t.seq), gpu.Ptr(t.cu))
}

// copyLayout is how float32 rows lie in memory: with a pitch.
type copyLayout struct{ rows, cols int }

func (l copyLayout) bytes() int { return l.rows * 4 * pitch(l.cols) }

// unpack goes from the device's layout to tight rows.
func (l copyLayout) unpack(dst []float32, src []byte) {
	for r := range l.rows {
		FP32.decode(dst[r*l.cols:(r+1)*l.cols], src[r*4*pitch(l.cols):])
	}
}
