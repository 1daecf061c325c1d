package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// rotary is a Rotary that was accepted.
type rotary struct {
	kernels.Rotary
	columns int // of a head
	longest int // tokens of a sequence of the batch
}

// Rotary holds the rotation back until the next call, which may be the
// attention whose kernel rotates what it reads.
func (s *stream) Rotary(o kernels.Rotary) {
	s.flush()
	if !s.accepts(o) {
		return
	}
	qkv, d := of(o.QKV), 2*len(o.InvFreq)
	if d%8 != 0 {
		s.refuse("rotary", shapesOf(s.rows(), qkv)(), "no kernel for heads of %d columns: they have to be a multiple of 8", d)
		return
	}
	o.InvFreq = slices.Clone(o.InvFreq)
	s.turning = &rotary{o, d, 0}
	for i := range s.batch.Sequences() {
		s.turning.longest = max(s.turning.longest, s.batch.Len(i))
	}
}

// rotate sends a Rotary that nothing was fused with.
func (s *stream) rotate(o *rotary) {
	if s.err != nil {
		return
	}
	qkv, rows := of(o.QKV), s.rows()
	s.enqueue("rotary", shapesOf(rows, qkv), s.timed(func() error {
		turns, err := s.rotations(o.InvFreq, o.longest)
		if err != nil {
			return err
		}
		kernel, at := "rotary_fp32", qkv.wide
		if qkv.wide == 0 {
			kernel, at = s.typed("rotary"), qkv.narrow
		}
		return first(s.writes(qkv.memory),
			s.launch(kernel, geometry{x: rows, y: 1, block: 128}, ptr(at), ptr(s.tables.pos), ptr(turns),
				num(o.Heads), num(o.columns), fl(o.QScale), num(rows)),
			s.narrowed(qkv, rows))
	}, o.Rotary))
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

// Attention rotates queries and keys itself where the call before asked for
// it. One that is refused leaves the Rotary to flush, which drops it after a
// mistake.
func (s *stream) Attention(o kernels.Attention) {
	turning := s.turning
	if turning == nil || !s.joins(turning, o) {
		turning = nil
		s.flush()
	}
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
	ops := []kernels.Op{o}
	if turning != nil {
		s.turning = nil
		ops = []kernels.Op{turning.Rotary, o}
	}
	s.enqueue("attention", shapesOf(rows, out, qkv), s.timed(func() error {
		at := devicePtr(0)
		if slopes != nil {
			var err error
			if at, err = s.constant(slopes); err != nil {
				return err
			}
		}
		kernel := "attention"
		params := []param{ptr(out.operand(t)), ptr(qkv.operand(t)), ptr(s.tables.cu), ptr(s.tables.blocks), num(o.Heads), fl(o.Scale), ptr(at)}
		if turning != nil {
			turns, err := s.rotations(turning.InvFreq, turning.longest)
			if err != nil {
				return err
			}
			kernel = "attention_rotary"
			params = append(params, ptr(turns), fl(turning.QScale))
		}
		return first(s.writes(out.memory),
			s.launch(fmt.Sprintf("%s_%d_%s", kernel, d, t), attentionGeometry(t, d, blocks, o.Heads), params...),
			s.widened(out, rows))
	}, ops...))
}

// joins reports whether the attention's kernel can apply a Rotary: it is over
// the same rows, heads and columns. Of a buffer in both types the float32 copy
// is what has to be rotated, and attention reads the other.
func (s *stream) joins(r *rotary, o kernels.Attention) bool {
	if o.QKV == nil || o.Out == nil || o.Heads != r.Heads || o.Out.Cols() != o.Heads*r.columns {
		return false
	}
	wide, narrow := widths(s.backend.dtype, of(r.QKV).kind)
	return of(o.QKV).memory == of(r.QKV).memory && !(wide && narrow)
}
