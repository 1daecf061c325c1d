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
	if !s.accepts(o) {
		return
	}
	out, table, rows, sequences := of(o.Out), o.Table.(*weight), s.rows(), s.batch.Sequences()
	s.enqueue("embed", shapesOf(rows, out), s.timed(func() error {
		t := s.tables
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

// norms are the LayerNorm kernels by the widest rows that they take. A warp
// keeps a row in its registers, the last kernel a block.
var norms = [...]struct{ widest, rowsPerBlock, threads int }{
	{512, 4, 128},
	{1280, 4, 128},
	{2560, 4, 128},
	{8192, 1, 256},
}

func (s *stream) Norm(o kernels.Norm) {
	if !s.accepts(o) {
		return
	}
	out, in, rows := of(o.Out), of(o.In), s.rows()
	i := slices.IndexFunc(norms[:], func(n struct{ widest, rowsPerBlock, threads int }) bool { return in.cols <= n.widest })
	if i < 0 {
		s.refuse("norm", shapesOf(rows, out, in)(), "no kernel for rows of more than %d columns", norms[len(norms)-1].widest)
		return
	}
	kernel, g := fmt.Sprintf("layernorm_%d", norms[i].widest), geometry{x: ceilDiv(rows, norms[i].rowsPerBlock), y: 1, block: norms[i].threads}
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

func (s *stream) Pool(o kernels.Pool) {
	if !s.accepts(o) {
		return
	}
	out, in, batch := of(o.Out), of(o.In), s.batch
	sequences := batch.Sequences()
	s.enqueue("pool", shapesOf(sequences, out, in), s.timed(func() error {
		return first(s.ranges(o, batch), s.writes(out.memory),
			s.launch("pool", geometry{x: ceilDiv(out.cols, 32), y: min(sequences, maxGridY), block: 256},
				ptr(out.wide), ptr(in.wide), ptr(s.tables.ranges), num(out.cols), num(sequences)))
	}, o))
}

// ranges sends the rows that each sequence of the batch is averaged over,
// unless they are on the device: a pass that pools several layers asks for
// the same ones each time.
func (s *stream) ranges(o kernels.Pool, batch kernels.Batch) error {
	side := s.tables.side
	if p := side.pooled; p != nil && p.Skip == o.Skip && p.Trim == o.Trim && p.Limit == o.Limit {
		return nil
	}
	sequences := batch.Sequences()
	piece, err := s.slab(8 * s.limits.Sequences)
	if err != nil {
		return err
	}
	list := piece.int32s(0, 2*sequences)
	for q := range sequences {
		from, to := o.Range(batch.Len(q))
		list[2*q], list[2*q+1] = batch.CuSeqlens[q]+int32(from), batch.CuSeqlens[q]+int32(to)
	}
	on := s.loads
	if side.pooled != nil {
		on = s.compute // the last ones may still be read
	}
	side.pooled = &o
	return first(
		s.device.upload(side.ranges, piece.pinned, 0, 8*sequences, on),
		s.device.after(on, s.compute, s.point))
}
