package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// attentionScratch returns the workspace that an attention needs, as a number of columns in the operands' type. cols is
// the number of columns of the attention's result. The argument "as" is the precision in which later operations read
// that result. The 16-bit kernels need cols columns for the rotated keys. They need cols columns more if the result is
// read only in float32, because they cannot write float32.
func attentionScratch(t kernels.DType, o kernels.Attention, cols int, as kernels.Precision) int {
	needed := 0
	if t != kernels.FP32 && o.Rotary != nil {
		needed += cols
	}
	if t != kernels.FP32 && as == kernels.Float32 {
		needed += cols
	}
	return needed
}

// attention returns a function that launches an attention. If the operation has a Rotary, the function also rotates
// queries and keys.
func (c *compiler) attention(o kernels.Attention, out, qkv *matrix, scratch *memory) func(*submission) {
	t, d := c.backend.dtype, out.cols/o.Heads
	switch {
	case !slices.Contains(attentionHeads, d):
		c.Fail(fmt.Errorf("no kernel for heads of %d columns, only of %v: %w", d, attentionHeads, kernels.ErrUnsupported))
		return nil
	case o.Heads > maxGridY:
		c.Fail(fmt.Errorf("%d heads are over %d: %w", o.Heads, maxGridY, kernels.ErrUnsupported))
		return nil
	}
	rotate := func(*submission) {}
	to, keys := out.operand, driver.Pointer(0)
	if scratch != nil {
		keys = scratch.narrow
		if out.narrow == 0 {
			to, keys = keys, keys+driver.Pointer(sizeOf(t)*c.limits.Tokens*pitch(out.cols))
		}
	}
	at := 2 // params[at] is cu and params[at+1] is blocks, which differ from batch to batch
	name := "attention"
	params := []gpu.Param{gpu.Ptr(to), gpu.Ptr(qkv.operand), 0, 0,
		gpu.Int(o.Heads), gpu.Float(o.Scale), gpu.Ptr(c.slopes(o))}
	if o.Rotary != nil {
		turns := c.rotation(o.Rotary.InvFreq)
		name = "attention_rotary"
		params = append(params, gpu.Ptr(turns), gpu.Float(o.Rotary.QScale))
		if t != kernels.FP32 {
			at++
			params = slices.Insert(params, 2, gpu.Ptr(keys))
			rotate = c.rotateKeys(o.Heads, d, keys, qkv, turns)
		}
	}
	k := c.typed(fmt.Sprintf("%s_%d", name, d))
	widen := c.convert("widen", out.wide, to, out.cols)
	return func(s *submission) {
		rotate(s)
		params[at], params[at+1] = gpu.Ptr(s.tables.cu), gpu.Ptr(s.tables.blocks)
		s.launch(k, o.Heads, s.blocks, params...)
		widen(s)
	}
}

// slopes copies the ALiBi slopes of an attention to the device. It returns a null pointer if the attention has none.
// The 16-bit kernels subtract slope · distance from the scores before they multiply the scores by the scale, so for
// these kernels the method divides each slope by the scale.
func (c *compiler) slopes(o kernels.Attention) driver.Pointer {
	if o.Slopes == nil {
		return 0
	}
	slopes := slices.Clone(o.Slopes)
	for i := range slopes {
		if c.backend.dtype != kernels.FP32 {
			slopes[i] /= o.Scale
		}
	}
	return c.constant(slopes)
}

// rotateKeys returns a function that launches the kernel that rotates keys. The kernel reads the keys in qkv. The
// argument to is the address at which it stores the rotated keys, and the argument turns is the address of the table of
// cosines and sines that compiler.rotation returns.
func (c *compiler) rotateKeys(heads, d int, to driver.Pointer, qkv *matrix, turns driver.Pointer) func(*submission) {
	k, pos := c.typed("rotate_keys"), c.tables.pos
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, heads*d, gpu.Ptr(to), gpu.Ptr(qkv.narrow), gpu.Ptr(pos), gpu.Ptr(turns),
			gpu.Int(heads), gpu.Int(d), gpu.Int(rows))
	}
}
