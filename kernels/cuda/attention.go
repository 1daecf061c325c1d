package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// attentionHeads are the head sizes that have an attention kernel.
var attentionHeads = []int{16, 24, 32, 64, 128}

// attentionRows is the number of query rows of one block.
const attentionRows = 64

// attentionGeometry is that of src/README.md.
func attentionGeometry(t DType, d, blocks, heads int) geometry {
	if t == FP32 {
		return geometry{x: blocks, y: heads, block: 256, shared: 4 * (128*(d+4) + 64*36)}
	}
	return geometry{x: blocks, y: heads, block: 128, shared: 512 * ((d+15)&^15 + 8)}
}

func (s *stream) Attention(o kernels.Attention) {
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
	blocks, longest := 0, 0
	for i := range s.batch.Sequences() {
		blocks += ceilDiv(s.batch.Len(i), s.tables.rowsPerBlock)
		longest = max(longest, s.batch.Len(i))
	}
	o.Slopes = slices.Clone(o.Slopes)
	if t != FP32 { // whose kernels subtract them before they scale
		for i := range o.Slopes {
			o.Slopes[i] /= o.Scale
		}
	}
	if o.Rotary != nil {
		o.Rotary = &kernels.Rotary{QScale: o.Rotary.QScale, InvFreq: slices.Clone(o.Rotary.InvFreq)}
	}
	s.enqueue("attention", shapesOf(rows, out, qkv), s.timed(func() error {
		at := devicePtr(0)
		if o.Slopes != nil {
			var err error
			if at, err = s.constant(o.Slopes); err != nil {
				return err
			}
		}
		kernel := "attention"
		params := []param{ptr(out.operand(t)), ptr(qkv.operand(t)), ptr(s.tables.cu), ptr(s.tables.blocks), num(o.Heads), fl(o.Scale), ptr(at)}
		if o.Rotary != nil {
			turns, err := s.rotations(o.Rotary.InvFreq, longest)
			if err != nil {
				return err
			}
			kernel = "attention_rotary"
			params = append(params, ptr(turns), fl(o.Rotary.QScale))
			if t != FP32 {
				keys, err := s.product(out.cols, false)
				if err != nil {
					return err
				}
				params = slices.Insert(params, 2, ptr(keys.narrow))
				err = s.launch("rotate_keys_"+t.String(), geometry{x: ceilDiv(out.cols/8, 128), y: min(rows, maxGridY), block: 128},
					ptr(keys.narrow), ptr(qkv.narrow), ptr(s.tables.pos), ptr(turns), num(o.Heads), num(d), num(rows))
				if err != nil {
					return err
				}
			}
		}
		return first(s.writes(out.memory),
			s.launch(fmt.Sprintf("%s_%d_%s", kernel, d, t), attentionGeometry(t, d, blocks, o.Heads), params...),
			s.widened(out, rows))
	}, o))
}
