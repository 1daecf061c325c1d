package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// maxGridY is the most blocks that a grid has in its second dimension; kernels
// step over the rows beyond.
const maxGridY = 65535

// rows is T of the batch.
func (s *stream) rows() int { return len(s.batch.IDs) }

func shapesOf(rows int, bs ...*buffer) func() string {
	return func() string {
		text := ""
		for i, b := range bs {
			if i > 0 {
				text += " = "
			}
			text += fmt.Sprintf("[%d %d]", rows, b.cols)
		}
		return text
	}
}

// vector is the float32 copy of a weight that may be nil.
func vector(w kernels.Weight) devicePtr {
	if w == nil {
		return 0
	}
	return w.(*weight).at
}

func (s *stream) Embed(o kernels.Embed) {
	s.flush()
	if !s.accepts(o) {
		return
	}
	out, table, rows, sequences := of(o.Out), o.Table.(*weight), s.rows(), s.batch.Sequences()
	s.enqueue("embed", shapesOf(rows, out), s.timed(func() error {
		t := &s.tables
		err := first(s.writes(out.memory),
			s.launch("embed_scale", geometry{x: sequences, y: 1, block: 32}, ptr(t.scale), ptr(t.ids), ptr(t.cu), fl(o.Scale), num(int(o.Mask))))
		if err != nil {
			return err
		}
		wide, narrow := out.outputs()
		return s.launch(s.typed("embed"), geometry{x: rows, y: 1, block: 128}, wide, narrow, ptr(table.at),
			ptr(t.ids), ptr(t.seq), ptr(t.scale), ptr(vector(o.Type)), num(int(o.Mask)), num(rows), num(out.cols))
	}, o))
}

// The widest rows of the two LayerNorm kernels: one keeps a row in a warp's
// registers, the other in a block's.
const (
	warpNormCols  = 1280
	blockNormCols = 8192
)

func (s *stream) Norm(o kernels.Norm) {
	s.flush()
	if !s.accepts(o) {
		return
	}
	out, in, rows := of(o.Out), of(o.In), s.rows()
	kernel, g := "layernorm_warp", geometry{x: ceilDiv(rows, 4), y: 1, block: 128}
	switch {
	case in.cols > blockNormCols:
		s.refuse("norm", shapesOf(rows, out, in)(), "no kernel for rows of more than %d columns", blockNormCols)
		return
	case in.cols > warpNormCols:
		kernel, g = "layernorm_block", geometry{x: rows, y: 1, block: 256}
	}
	s.enqueue("norm", shapesOf(rows, out, in), s.timed(func() error {
		if err := s.writes(out.memory); err != nil {
			return err
		}
		add := devicePtr(0)
		if o.Add != nil {
			add = of(o.Add).wide
		}
		wide, narrow := out.outputs()
		return s.launch(s.typed(kernel), g, wide, narrow, ptr(in.wide), ptr(add),
			ptr(vector(o.Gain)), ptr(vector(o.Bias)), fl(o.Eps), num(rows), num(in.cols))
	}, o))
}

func (s *stream) Rotary(o kernels.Rotary) {
	s.flush()
	if !s.accepts(o) {
		return
	}
	qkv, rows, d := of(o.QKV), s.rows(), 2*len(o.InvFreq)
	if d%8 != 0 {
		s.refuse("rotary", shapesOf(rows, qkv)(), "no kernel for heads of %d columns: they have to be a multiple of 8", d)
		return
	}
	longest, invFreq := 0, slices.Clone(o.InvFreq)
	for i := range s.batch.Sequences() {
		longest = max(longest, s.batch.Len(i))
	}
	s.enqueue("rotary", shapesOf(rows, qkv), s.timed(func() error {
		turns, err := s.rotations(invFreq, longest)
		if err != nil {
			return err
		}
		kernel, at := "rotary_fp32", qkv.wide
		if qkv.wide == 0 {
			kernel, at = s.typed("rotary"), qkv.narrow
		}
		return first(s.writes(qkv.memory),
			s.launch(kernel, geometry{x: rows, y: 1, block: 128}, ptr(at), ptr(s.tables.pos), ptr(turns),
				num(o.Heads), num(d), fl(o.QScale), num(rows)),
			s.narrowed(qkv, rows))
	}, o))
}

// attentionHeads are the head sizes that have an attention kernel.
var attentionHeads = []int{16, 24, 32, 64, 128}

// attentionRows is the number of query rows of one block.
func attentionRows(t DType) int {
	if t == FP32 {
		return 64
	}
	return 128
}

// attentionGeometry is that of src/README.md.
func attentionGeometry(t DType, d, blocks, heads int) geometry {
	g := geometry{x: blocks, y: heads, block: 256}
	if t == FP32 {
		g.shared = 4 * (128*(d+4) + 64*36)
		return g
	}
	if d != 128 {
		g.block = 128
	}
	g.shared = 512 * ((d+15)&^15 + 8)
	return g
}

func (s *stream) Attention(o kernels.Attention) {
	s.flush()
	if !s.accepts(o) {
		return
	}
	out, qkv, rows, t := of(o.Out), of(o.QKV), s.rows(), s.backend.dtype
	d := out.cols / o.Heads
	switch {
	case !slices.Contains(attentionHeads, d):
		s.refuse("attention", shapesOf(rows, out, qkv)(), "no kernel for heads of %d columns, only of %v", d, attentionHeads)
		return
	case o.Heads > maxGridY:
		s.refuse("attention", shapesOf(rows, out, qkv)(), "%d heads are over %d", o.Heads, maxGridY)
		return
	case t != FP32 && out.kind&kernels.Operand == 0:
		s.refuse("attention", shapesOf(rows, out, qkv)(), "the output has to be of kind operand")
		return
	}
	slopes, blocks := slices.Clone(o.Slopes), 0
	for i := range s.batch.Sequences() {
		blocks += ceilDiv(s.batch.Len(i), s.tables.rowsPerBlock)
	}
	s.enqueue("attention", shapesOf(rows, out, qkv), s.timed(func() error {
		at := devicePtr(0)
		if slopes != nil {
			var err error
			if at, err = s.constant(slopes); err != nil {
				return err
			}
		}
		return first(s.writes(out.memory),
			s.launch(fmt.Sprintf("attention_%d_%s", d, t), attentionGeometry(t, d, blocks, o.Heads),
				ptr(out.operand(t)), ptr(qkv.operand(t)), ptr(s.tables.cu), ptr(s.tables.blocks), num(o.Heads), fl(o.Scale), ptr(at)),
			s.widened(out, rows))
	}, o))
}

func (s *stream) Pool(o kernels.Pool) {
	s.flush()
	if !s.accepts(o) {
		return
	}
	out, in, batch := of(o.Out), of(o.In), s.batch
	sequences := batch.Sequences()
	s.enqueue("pool", shapesOf(sequences, out, in), s.timed(func() error {
		piece, err := s.slab(8 * s.limits.Sequences)
		if err != nil {
			return err
		}
		ranges := piece.int32s(0, 2*sequences)
		for q := range sequences {
			from, to := o.Range(batch.Len(q))
			ranges[2*q], ranges[2*q+1] = batch.CuSeqlens[q]+int32(from), batch.CuSeqlens[q]+int32(to)
		}
		return first(s.writes(out.memory),
			s.device.upload(s.tables.ranges, piece.pinned, 0, 8*sequences, s.compute),
			s.launch("pool", geometry{x: ceilDiv(out.cols, 32), y: min(sequences, maxGridY), block: 256},
				ptr(out.wide), ptr(in.wide), ptr(s.tables.ranges), num(out.cols), num(sequences)))
	}, o))
}
