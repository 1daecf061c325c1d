package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

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

// attention gives the launch of an attention, which rotates what it reads where the operation says so.
func (r *runner) attention(o kernels.Attention, out, qkv, scratch *matrix) (func(*submission) error, error) {
	t := r.backend.dtype
	d := out.cols / o.Heads
	switch {
	case !slices.Contains(attentionHeads, d):
		return nil, fmt.Errorf("no kernel for heads of %d columns, only of %v", d, attentionHeads)
	case o.Heads > maxGridY:
		return nil, fmt.Errorf("%d heads are over %d", o.Heads, maxGridY)
	}
	to := out
	if scratch != nil {
		to = scratch // the kernels of 16-bit types write no float32
	}
	slopes := devicePtr(0)
	if o.Slopes != nil {
		var err error
		if slopes, err = r.constant(o.Slopes); err != nil {
			return nil, err
		}
	}
	name := "attention"
	params := []param{ptr(to.operand(t)), ptr(qkv.operand(t)), 0, 0, num(o.Heads), fl(o.Scale), ptr(slopes)}
	if o.Rotary != nil {
		turns, err := r.rotation(o.Rotary.InvFreq)
		if err != nil {
			return nil, err
		}
		name = "attention_rotary"
		params = append(params, ptr(turns), fl(o.Rotary.QScale))
	}
	k, err := r.kernel(fmt.Sprintf("%s_%d_%s", name, d, t), attentionGeometry(t, d, 1, o.Heads).shared)
	if err != nil {
		return nil, err
	}
	widen, err := r.widen(out.wide, to.narrow, out.cols)
	return func(s *submission) error {
		params[2], params[3] = ptr(r.tables.cu), ptr(r.tables.blocks)
		return first(r.waitForReaders(to.memory), r.waitForReaders(out.memory),
			r.launch(k, attentionGeometry(t, d, s.blocks, o.Heads), params...),
			widen(s.rows()))
	}, err
}
