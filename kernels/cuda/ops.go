package cuda

import (
	"fmt"
	"slices"

	"seqembed/kernels"
)

// The functions of this file run on the device's thread. Those that resolve an operation give what launches it.

// maxGridY is the most blocks that a grid has in its second dimension; kernels
// step over the rows beyond.
const maxGridY = 65535

// vector is the float32 copy of a weight that may be nil.
func vector(w kernels.Weight) devicePtr {
	if w == nil {
		return 0
	}
	return w.(*weight).at
}

func (r *runner) embed(o kernels.Embed, out *matrix) (func(*submission) error, error) {
	table, t := o.Table.(*weight), r.tables
	scale, err := r.kernel("embed_scale", 0)
	if err != nil {
		return nil, err
	}
	embed, err := r.kernel(r.typed("embed"), 0)
	wide, narrow := out.outputs()
	return func(s *submission) error {
		rows := s.rows()
		err := first(r.waitForReaders(out.memory),
			r.launch(scale, geometry{x: s.batch.Sequences(), y: 1, block: 32},
				ptr(t.scale), ptr(t.ids), ptr(t.cu), fl(o.Scale), num(int(o.Mask))))
		if err != nil {
			return err
		}
		return r.launch(embed, geometry{x: rows, y: 1, block: 128}, wide, narrow, ptr(table.at),
			ptr(t.ids), ptr(t.seq), ptr(t.scale), ptr(vector(o.Type)), num(int(o.Mask)), num(rows), num(out.cols))
	}, err
}

// normKernel is a LayerNorm kernel by the widest rows that it takes.
type normKernel struct{ widest, rowsPerBlock, threads int }

// norms are all of them. A warp keeps a row in its registers, the last kernel a block.
var norms = [...]normKernel{
	{512, 4, 128},
	{1280, 4, 128},
	{2560, 4, 128},
	{8192, 1, 256},
}

func (r *runner) norm(o kernels.Norm, out, in *matrix) (func(*submission) error, error) {
	i := slices.IndexFunc(norms[:], func(n normKernel) bool { return in.cols <= n.widest })
	if i < 0 {
		return nil, fmt.Errorf("no kernel for rows of more than %d columns", norms[len(norms)-1].widest)
	}
	n := norms[i]
	k, err := r.kernel(r.typed(fmt.Sprintf("layernorm_%d", n.widest)), 0)
	wide, narrow := out.outputs()
	return func(s *submission) error {
		rows := s.rows()
		g := geometry{x: ceilDiv(rows, n.rowsPerBlock), y: 1, block: n.threads}
		return first(r.waitForReaders(out.memory),
			r.launch(k, g, wide, narrow, ptr(in.wide), ptr(0), // nothing is added
				ptr(vector(o.Gain)), ptr(vector(o.Bias)), fl(o.Eps), num(rows), num(in.cols)))
	}, err
}

func (r *runner) pool(o kernels.Range, out, in *matrix) (func(*submission) error, error) {
	k, err := r.kernel("pool", 0)
	at := r.tables.index(o)
	return func(s *submission) error {
		sequences := s.batch.Sequences()
		return first(r.waitForReaders(out.memory),
			r.launch(k, geometry{x: ceilDiv(out.cols, 32), y: min(sequences, maxGridY), block: 256},
				ptr(out.wide), ptr(in.wide), ptr(r.tables.ranges[at]), num(out.cols), num(sequences)))
	}, err
}

// output copies a value to the host beside the operations that follow.
func (r *runner) output(s *submission, i int, from *matrix) error {
	d := r.device
	layout := copyLayout{rows: s.rows(), cols: from.cols}
	most := r.limits.Tokens
	if from.perSequence {
		layout.rows, most = s.batch.Sequences(), r.limits.Sequences
	}
	var err error
	if s.results[i].at == nil {
		// The size is that of the limits, so that later batches fit as well.
		s.results[i], err = d.pin(copyLayout{most, from.cols}.bytes())
	}
	if err == nil && from.reading == 0 {
		from.reading, err = d.newEvent()
	}
	if err != nil {
		return err
	}
	from.busy = true
	return first(
		d.after(r.compute, r.copies, r.fence),
		d.download(s.results[i], 0, from.wide, layout.bytes(), r.copies),
		d.drv.cuEventRecord(from.reading, r.copies).err("cuEventRecord"))
}
