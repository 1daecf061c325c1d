package cuda

// begin sends the batch's ids, its cu_seqlens, its list of attention blocks and the rows that it pools from pinned
// memory, while the batch before computes. It runs on the device's thread.
func (r *runner) begin(s *submission) error {
	t, d, b := r.tables, r.device, s.batch
	blocks := t.cut(b)
	s.blocks = len(blocks)
	if s.loaded.at == nil {
		// The size is that of the limits, so that later batches fit as well.
		bytes := 4*r.limits.Tokens + 4*(r.limits.Sequences+1) + 8*t.maxBlocks + 8*r.limits.Sequences*len(t.pooled)
		var err error
		if s.loaded, err = d.pin(bytes); err != nil {
			return err
		}
	}
	piece := s.loaded
	cuAt := 4 * len(b.IDs)
	blocksAt := cuAt + 4*len(b.CuSeqlens)
	rangesAt := blocksAt + 8*len(blocks)
	copy(piece.int32s(0, len(b.IDs)), b.IDs)
	copy(piece.int32s(cuAt, len(b.CuSeqlens)), b.CuSeqlens)
	list := piece.int32s(blocksAt, 2*len(blocks))
	for i, block := range blocks {
		list[2*i], list[2*i+1] = block.sequence, block.first
	}
	err := first(t.swap(d, r.compute, r.loads),
		d.upload(t.ids, piece, 0, cuAt, r.loads),
		d.upload(t.cu, piece, cuAt, blocksAt-cuAt, r.loads),
		d.upload(t.blocks, piece, blocksAt, 8*len(blocks), r.loads))
	for i, o := range t.pooled {
		at, sequences := rangesAt+8*i*b.Sequences(), b.Sequences()
		list := piece.int32s(at, 2*sequences)
		for q := range sequences {
			from, to := o.Of(b.Len(q))
			list[2*q], list[2*q+1] = b.CuSeqlens[q]+int32(from), b.CuSeqlens[q]+int32(to)
		}
		err = first(err, d.upload(t.ranges[i], piece, at, 8*sequences, r.loads))
	}
	if err = first(err, d.after(r.loads, r.compute, r.fence)); err != nil {
		return err
	}
	return r.launch(r.positions, geometry{x: b.Sequences(), y: 1, block: 128}, ptr(t.pos), ptr(t.seq), ptr(t.cu))
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
