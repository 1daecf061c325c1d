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

// attentionScratch is the columns of the operands' type that an attention needs beside its values: the 16-bit kernels read
// keys that another has rotated, and write no float32.
func attentionScratch(t DType, o kernels.Attention, cols int, as kernels.Precision) int {
	needed := 0
	if t != FP32 && o.Rotary != nil {
		needed += cols
	}
	if t != FP32 && as == kernels.Float32 {
		needed += cols
	}
	return needed
}

// attention gives the launches of an attention, which rotates what it reads where the operation says so.
func (r *runner) attention(o kernels.Attention, out, qkv, scratch *matrix) (func(*submission) error, error) {
	t := r.backend.dtype
	d := out.cols / o.Heads
	switch {
	case !slices.Contains(attentionHeads, d):
		return nil, fmt.Errorf("no kernel for heads of %d columns, only of %v", d, attentionHeads)
	case o.Heads > maxGridY:
		return nil, fmt.Errorf("%d heads are over %d", o.Heads, maxGridY)
	}
	slopes, err := r.slopes(o)
	if err != nil {
		return nil, err
	}
	rotate := func(*submission) error { return nil }
	memory, to, keys := out.memory, out.operand(t), devicePtr(0)
	if scratch != nil {
		memory, keys = scratch.memory, scratch.narrow
		if out.narrow == 0 {
			to, keys = keys, keys+devicePtr(t.size()*r.limits.Tokens*pitch(out.cols))
		}
	}
	at := 2 // where cu and blocks come, which are a batch's
	name, params := "attention", []param{ptr(to), ptr(qkv.operand(t)), 0, 0, num(o.Heads), fl(o.Scale), ptr(slopes)}
	if o.Rotary != nil {
		turns, err := r.rotation(o.Rotary.InvFreq)
		if err != nil {
			return nil, err
		}
		name = "attention_rotary"
		params = append(params, ptr(turns), fl(o.Rotary.QScale))
		if t != FP32 {
			at++
			params = slices.Insert(params, 2, ptr(keys))
			if rotate, err = r.rotateKeys(o.Heads, d, keys, qkv, turns); err != nil {
				return nil, err
			}
		}
	}
	k, err := r.kernel(fmt.Sprintf("%s_%d_%s", name, d, t), attentionGeometry(t, d, 1, o.Heads).shared)
	if err != nil {
		return nil, err
	}
	widen, err := r.widen(out.wide, to, out.cols)
	return func(s *submission) error {
		params[at], params[at+1] = ptr(r.tables.cu), ptr(r.tables.blocks)
		return first(r.waitForReaders(memory), r.waitForReaders(out.memory), rotate(s),
			r.launch(k, attentionGeometry(t, d, s.blocks, o.Heads), params...),
			widen(s.rows()))
	}, err
}

// slopes gives the device's copy of the slopes, or null for none. The 16-bit kernels subtract before they scale.
func (r *runner) slopes(o kernels.Attention) (devicePtr, error) {
	if o.Slopes == nil {
		return 0, nil
	}
	slopes := slices.Clone(o.Slopes)
	for i := range slopes {
		if r.backend.dtype != FP32 {
			slopes[i] /= o.Scale
		}
	}
	return r.constant(slopes)
}

// rotateKeys gives the launch that writes the rotated keys of qkv.
func (r *runner) rotateKeys(heads, d int, to devicePtr, qkv *matrix, turns devicePtr) (func(*submission) error, error) {
	k, err := r.kernel(r.typed("rotate_keys"), 0)
	return func(s *submission) error {
		g := geometry{x: ceilDiv(heads*d/8, 128), y: min(s.rows(), maxGridY), block: 128}
		return r.launch(k, g, ptr(to), ptr(qkv.narrow), ptr(r.tables.pos), ptr(turns), num(heads), num(d), num(s.rows()))
	}, err
}
