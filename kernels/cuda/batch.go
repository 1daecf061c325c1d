package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// Begin sends the batch's ids, its cu_seqlens and its list of attention blocks
// from pinned memory, while the batch before computes, and returns at once.
func (s *stream) Begin(b kernels.Batch) {
	if s.err == nil {
		s.err = s.limits.Check(b)
	}
	s.batch = b
	if s.err != nil {
		return
	}
	s.enqueue("batch", func() string { return fmt.Sprintf("[%d tokens, %d sequences]", len(b.IDs), b.Sequences()) }, func() error {
		return s.begin(b)
	})
}

func (s *stream) begin(b kernels.Batch) error {
	t, d := s.tables, s.device
	blocks := attentionBlocks(b, t.rowsPerBlock)
	// The size is that of the limits, so that the next batch fits as well.
	piece, err := s.slab(4*s.limits.Tokens + 4*(s.limits.Sequences+1) + 8*t.maxBlocks)
	if err != nil {
		return err
	}
	cuAt := 4 * len(b.IDs)
	blocksAt := cuAt + 4*len(b.CuSeqlens)
	copy(piece.int32s(0, len(b.IDs)), b.IDs)
	copy(piece.int32s(cuAt, len(b.CuSeqlens)), b.CuSeqlens)
	list := piece.int32s(blocksAt, 2*len(blocks))
	for i, block := range blocks {
		list[2*i], list[2*i+1] = block.sequence, block.first
	}
	err = t.turn(d, s.compute, s.loads)
	err = first(err,
		d.upload(t.ids, piece.pinned, 0, cuAt, s.loads),
		d.upload(t.cu, piece.pinned, cuAt, blocksAt-cuAt, s.loads),
		d.upload(t.blocks, piece.pinned, blocksAt, 8*len(blocks), s.loads),
		d.after(s.loads, s.compute, s.point))
	if err != nil {
		return err
	}
	return s.launch("positions", geometry{x: b.Sequences(), y: 1, block: 128}, ptr(t.pos), ptr(t.seq), ptr(t.cu))
}

// copyLayout is how rows of a buffer lie in memory: of one type, with a pitch.
type copyLayout struct {
	rows, cols int
	dtype      DType
}

func (l copyLayout) rowBytes() int { return pitch(l.cols) * l.dtype.size() }
func (l copyLayout) bytes() int    { return l.rows * l.rowBytes() }

// pack and unpack go between the device's layout and tight float32 rows.
func (l copyLayout) pack(dst []byte, src []float32) {
	for r := range l.rows {
		l.dtype.encode(dst[r*l.rowBytes():], src[r*l.cols:(r+1)*l.cols])
	}
}

func (l copyLayout) unpack(dst []float32, src []byte) {
	for r := range l.rows {
		l.dtype.decode(dst[r*l.cols:(r+1)*l.cols], src[r*l.rowBytes():])
	}
}

// layout is that of a buffer's rows in the batch.
func (s *stream) layout(b *buffer, t DType) copyLayout {
	return copyLayout{kernels.Rows(s.batch, b), b.cols, t}
}

// capacity is the bytes of a buffer at the limits.
func (s *stream) capacity(b *buffer, t DType) int {
	rows := s.limits.Tokens
	if b.perSequence {
		rows = s.limits.Sequences
	}
	return copyLayout{rows, b.cols, t}.bytes()
}

// Write converts src on the host.
func (s *stream) Write(dst kernels.Buffer, src []float32) {
	if s.err == nil {
		s.err = kernels.CheckCopy("write", s.batch, dst, src)
	}
	if s.err != nil {
		return
	}
	to := of(dst)
	wide, narrow := widths(s.backend.dtype, to.kind)
	if wide {
		s.write(to, FP32, src)
	}
	if narrow {
		s.write(to, s.backend.dtype, src)
	}
}

// write fills one copy of a buffer. It waits for the pinned memory, because
// src may change once Write has returned; only tests and tools write.
func (s *stream) write(to *buffer, t DType, src []float32) {
	layout, capacity := s.layout(to, t), s.capacity(to, t)
	shapes := func() string { return fmt.Sprintf("[%d %d]", layout.rows, layout.cols) }
	var piece *slab
	err := s.device.thread.call(func() error {
		var err error
		piece, err = s.slab(capacity)
		return err
	})
	if err != nil {
		s.refuse("write", shapes(), "%w", err)
		return
	}
	clear(piece.bytes[:layout.bytes()])
	layout.pack(piece.bytes, src)
	s.enqueue("write", shapes, func() error {
		at := to.narrow
		if t == FP32 {
			at = to.wide
		}
		return first(s.writes(to.memory), s.device.upload(at, piece.pinned, 0, layout.bytes(), s.compute))
	})
}

// reading is a Read whose values have not been handed over.
type reading struct {
	dst    []float32
	layout copyLayout
	piece  *slab // set on the device's thread
}

// Read copies from the float32 copy where there is one. The copy runs beside
// the operations that follow.
func (s *stream) Read(dst []float32, src kernels.Buffer) {
	if s.err == nil {
		s.err = kernels.CheckCopy("read", s.batch, src, dst)
	}
	if s.err != nil {
		return
	}
	from, t := of(src), FP32
	if wide, _ := widths(s.backend.dtype, from.kind); !wide {
		t = s.backend.dtype
	}
	r := &reading{dst: dst, layout: s.layout(from, t)}
	capacity := s.capacity(from, t)
	s.reads = append(s.reads, r)
	s.enqueue("read", func() string { return fmt.Sprintf("[%d %d]", r.layout.rows, r.layout.cols) }, func() error {
		return s.read(r, from, capacity)
	})
}

func (s *stream) read(r *reading, from *buffer, capacity int) error {
	d := s.device
	var err error
	if r.piece, err = s.slab(capacity); err != nil {
		return err
	}
	if from.reading == 0 {
		if from.reading, err = d.newEvent(); err != nil {
			return err
		}
	}
	at := from.narrow
	if r.layout.dtype == FP32 {
		at = from.wide
	}
	from.busy = true
	return first(
		d.after(s.compute, s.copies, s.point),
		d.download(r.piece.pinned, 0, at, r.layout.bytes(), s.copies),
		d.drv.cuEventRecord(from.reading, s.copies).err("cuEventRecord"))
}
