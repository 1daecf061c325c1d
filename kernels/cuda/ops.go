package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// Each method in this file prepares one kind of operation and returns a function that launches it.

func (c *compiler) embed(o kernels.Embed, out *matrix) func(*submission) {
	scale, embed, t := c.kernel("embed_scale"), c.typed("embed"), c.tables
	table, offset, mask := c.weight(o.Table), c.weight(o.Type), gpu.Int(int(o.Mask))
	wide, narrow := out.outputs()
	return func(s *submission) {
		rows := s.tokens()
		s.launch(scale, s.batch.Sequences(), 0,
			gpu.Ptr(t.scale), gpu.Ptr(t.ids), gpu.Ptr(t.cu), gpu.Float(o.Scale), mask)
		s.launch(embed, rows, 0, wide, narrow, gpu.Ptr(table.at), gpu.Ptr(t.ids), gpu.Ptr(t.seq), gpu.Ptr(t.scale),
			gpu.Ptr(offset.at), mask, gpu.Int(rows), gpu.Int(out.cols))
	}
}

func (c *compiler) norm(o kernels.Norm, out, in *matrix) func(*submission) {
	i := slices.IndexFunc(normWidths, func(widest int) bool { return in.cols <= widest })
	if i < 0 {
		c.Fail(fmt.Errorf("no kernel for rows of more than %d columns: %w", normWidths[len(normWidths)-1], kernels.ErrUnsupported))
		return nil
	}
	k, gain, bias := c.typed(fmt.Sprintf("layernorm_%d", normWidths[i])), c.weight(o.Gain), c.weight(o.Bias)
	wide, narrow := out.outputs()
	return func(s *submission) {
		rows := s.tokens()
		s.launch(k, rows, 0, wide, narrow, gpu.Ptr(in.wide), gpu.Ptr(0), // null: no residual is added
			gpu.Ptr(gain.at), gpu.Ptr(bias.at), gpu.Float(o.Eps), gpu.Int(rows), gpu.Int(in.cols))
	}
}

func (c *compiler) pool(o kernels.Range, out, in *matrix) func(*submission) {
	k, t := c.kernel("pool"), c.tables
	at := slices.Index(t.pooled, o)
	return func(s *submission) {
		sequences := s.batch.Sequences()
		s.launch(k, sequences, out.cols,
			gpu.Ptr(out.wide), gpu.Ptr(in.wide), gpu.Ptr(t.ranges[at]), gpu.Int(out.cols), gpu.Int(sequences))
	}
}
