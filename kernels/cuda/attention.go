package cuda

import (
	"cmp"
	"fmt"
	"slices"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// attentionScratch is the columns of the operands' type that an attention needs beside its values: the 16-bit kernels
// read keys that another has rotated, and write no float32.
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

// attention gives the launches of an attention, with the rotation of queries and keys where the operation has one.
func (c *compiler) attention(o kernels.Attention, out, qkv, scratch *matrix) (func(*submission) error, error) {
	t, r := c.backend.dtype, c.runner
	d := out.cols / o.Heads
	switch {
	case !slices.Contains(attentionHeads, d):
		return nil, fmt.Errorf("no kernel for heads of %d columns, only of %v: %w", d, attentionHeads, kernels.ErrUnsupported)
	case o.Heads > maxGridY:
		return nil, fmt.Errorf("%d heads are over %d: %w", o.Heads, maxGridY, kernels.ErrUnsupported)
	}
	slopes, err := c.slopes(o)
	if err != nil {
		return nil, err
	}
	rotate := func(*submission) error { return nil }
	memory, to, keys := out.memory, out.operand(t), driver.Pointer(0)
	if scratch != nil {
		memory, keys = scratch.memory, scratch.narrow
		if out.narrow == 0 {
			to, keys = keys, keys+driver.Pointer(t.size()*r.limits.Tokens*pitch(out.cols))
		}
	}
	at := 2 // where cu and blocks come, which are a batch's
	name := "attention"
	params := []gpu.Param{gpu.Ptr(to), gpu.Ptr(qkv.operand(t)), 0, 0,
		gpu.Int(o.Heads), gpu.Float(o.Scale), gpu.Ptr(slopes)}
	if o.Rotary != nil {
		turns, err := r.arena.rotation(c.Context, o.Rotary.InvFreq)
		if err != nil {
			return nil, err
		}
		name = "attention_rotary"
		params = append(params, gpu.Ptr(turns), gpu.Float(o.Rotary.QScale))
		if t != FP32 {
			at++
			params = slices.Insert(params, 2, gpu.Ptr(keys))
			if rotate, err = c.rotateKeys(o.Heads, d, keys, qkv, turns); err != nil {
				return nil, err
			}
		}
	}
	k, err := c.kernel(fmt.Sprintf("%s_%d_%s", name, d, t))
	if err != nil {
		return nil, err
	}
	widen, err := c.convert("widen", out.wide, to, out.cols)
	return func(s *submission) error {
		params[at], params[at+1] = gpu.Ptr(r.tables.cu), gpu.Ptr(r.tables.blocks)
		if err := cmp.Or(s.waitForReaders(memory), s.waitForReaders(out.memory), rotate(s)); err != nil {
			return err
		}
		if err := s.launch(k, o.Heads, s.blocks, params...); err != nil {
			return err
		}
		return widen(s)
	}, err
}

// slopes gives the device's copy of the slopes, or null for none. The 16-bit kernels subtract before they scale.
func (c *compiler) slopes(o kernels.Attention) (driver.Pointer, error) {
	if o.Slopes == nil {
		return 0, nil
	}
	slopes := slices.Clone(o.Slopes)
	for i := range slopes {
		if c.backend.dtype != FP32 {
			slopes[i] /= o.Scale
		}
	}
	return c.runner.arena.constant(c.Context, slopes)
}

// rotateKeys gives the launch that writes the rotated keys of qkv.
func (c *compiler) rotateKeys(heads, d int, to driver.Pointer, qkv *matrix, turns driver.Pointer) (
	func(*submission) error, error) {
	k, err := c.kernel(c.typed("rotate_keys"))
	pos := c.runner.tables.pos
	return func(s *submission) error {
		rows := s.rows()
		return s.launch(k, rows, heads*d, gpu.Ptr(to), gpu.Ptr(qkv.narrow), gpu.Ptr(pos), gpu.Ptr(turns),
			gpu.Int(heads), gpu.Int(d), gpu.Int(rows))
	}, err
}
