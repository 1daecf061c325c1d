package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// The functions of this file and of linear.go and attention.go resolve an operation and give the function that launches
// it.

// vector is the float32 copy of a weight that may be nil.
func vector(w kernels.Weight) driver.Pointer {
	if w == nil {
		return 0
	}
	return w.(*weight).at
}

func (c *compiler) embed(o kernels.Embed, out *matrix) (func(*submission) error, error) {
	if err := c.own(o.Table, o.Type); err != nil {
		return nil, err
	}
	table, t := o.Table.(*weight), c.runner.tables
	scale, err := c.kernel("embed_scale")
	if err != nil {
		return nil, err
	}
	embed, err := c.kernel(c.typed("embed"))
	wide, narrow := out.outputs()
	return func(s *submission) error {
		rows, mask := s.rows(), gpu.Int(int(o.Mask))
		if err := s.waitForReaders(out.memory); err != nil {
			return err
		}
		err := s.launch(scale, s.batch.Sequences(), 0,
			gpu.Ptr(t.scale), gpu.Ptr(t.ids), gpu.Ptr(t.cu), gpu.Float(o.Scale), mask)
		if err != nil {
			return err
		}
		return s.launch(embed, rows, 0, wide, narrow, gpu.Ptr(table.at), gpu.Ptr(t.ids), gpu.Ptr(t.seq), gpu.Ptr(t.scale),
			gpu.Ptr(vector(o.Type)), mask, gpu.Int(rows), gpu.Int(out.cols))
	}, err
}

func (c *compiler) norm(o kernels.Norm, out, in *matrix) (func(*submission) error, error) {
	i := slices.IndexFunc(normWidths, func(widest int) bool { return in.cols <= widest })
	if i < 0 {
		return nil, fmt.Errorf("no kernel for rows of more than %d columns: %w", normWidths[len(normWidths)-1], kernels.ErrUnsupported)
	}
	if err := c.own(o.Gain, o.Bias); err != nil {
		return nil, err
	}
	k, err := c.kernel(c.typed(fmt.Sprintf("layernorm_%d", normWidths[i])))
	wide, narrow := out.outputs()
	return func(s *submission) error {
		if err := s.waitForReaders(out.memory); err != nil {
			return err
		}
		return s.launch(k, s.rows(), 0, wide, narrow, gpu.Ptr(in.wide), gpu.Ptr(0), // nothing is added
			gpu.Ptr(vector(o.Gain)), gpu.Ptr(vector(o.Bias)), gpu.Float(o.Eps), gpu.Int(s.rows()), gpu.Int(in.cols))
	}, err
}

func (c *compiler) pool(o kernels.Range, out, in *matrix) (func(*submission) error, error) {
	k, err := c.kernel("pool")
	t, at := c.runner.tables, c.runner.tables.index(o)
	return func(s *submission) error {
		sequences := s.batch.Sequences()
		if err := s.waitForReaders(out.memory); err != nil {
			return err
		}
		return s.launch(k, sequences, out.cols,
			gpu.Ptr(out.wide), gpu.Ptr(in.wide), gpu.Ptr(t.ranges[at]), gpu.Int(out.cols), gpu.Int(sequences))
	}, err
}
