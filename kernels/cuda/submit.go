package cuda

import (
	"cmp"
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// submission is a batch on its way, with the pinned memory and the events that it needs. A runner has as many as there
// have been batches at once and uses them again, so that a batch allocates nothing once that many have run.
type submission struct {
	*runner
	wait func() error // finish

	batch kernels.Batch
	dst   [][]float32
	into  *kernels.Profile // or nil

	context          *gpu.Context // while run runs
	blocks           int          // of an attention
	err              error        // of run
	marked           bool         // the events below have been recorded
	loaded           gpu.Pinned   // sent by the host
	results          []gpu.Pinned // of each output
	computed, copied gpu.Event    // the end of the computing, and that of the results' copies
	timings          timings
}

// rows is T of the batch.
func (s *submission) rows() int { return len(s.batch.IDs) }

func (s *submission) shapes() string {
	return fmt.Sprintf("[%d tokens, %d sequences]", len(s.batch.IDs), s.batch.Sequences())
}

// run launches everything, up to the first launch that fails, and records the events for which finish waits.
func (s *submission) run(c *gpu.Context) error {
	s.context = c
	defer func() { s.context = nil }()
	err := s.launchAll()
	if failed := s.mark(); failed != nil {
		return cmp.Or(err, error(&kernels.OpError{Op: "wait", Shapes: s.shapes(), Err: failed}))
	}
	s.marked = true
	return err
}

func (s *submission) launchAll() error {
	s.timings.reset()
	if err := s.begin(); err != nil {
		return &kernels.OpError{Op: "batch", Shapes: s.shapes(), Err: err}
	}
	for i := range s.steps {
		if err := s.timed(&s.steps[i]); err != nil {
			return &kernels.OpError{Op: s.steps[i].op, Shapes: s.steps[i].shapes, Err: err}
		}
	}
	return nil
}

// launch enqueues a kernel on the compute stream for a result of those rows and columns.
func (s *submission) launch(k kernel, rows, cols int, params ...gpu.Param) error {
	if len(params) != len(k.params) {
		return fmt.Errorf("%s is given %d parameters and takes %d", k.Name, len(params), len(k.params))
	}
	x, y := k.tile.grid(rows, cols)
	return s.context.Launch(s.compute, k.Kernel, gpu.Geometry{X: x, Y: y, Block: k.block, Shared: k.shared}, params...)
}

// waitForReaders makes the compute stream wait for pending copies of m to the host, before a launch overwrites it.
func (s *submission) waitForReaders(m *memory) error {
	if !m.busy {
		return nil
	}
	m.busy = false
	return s.context.Await(s.compute, m.reading)
}

// output copies a value to the host beside the operations that follow.
func (s *submission) output(i int, from *matrix) error {
	c, layout, most := s.context, copyLayout{rows: s.rows(), cols: from.cols}, s.limits.Tokens
	if from.perSequence {
		layout.rows, most = s.batch.Sequences(), s.limits.Sequences
	}
	var err error
	if s.results[i].At == nil {
		// The size is that of the limits, so that later batches fit as well.
		s.results[i], err = c.Pin(copyLayout{most, from.cols}.bytes())
	}
	if err == nil && from.reading == 0 {
		from.reading, err = c.NewEvent()
	}
	if err != nil {
		return err
	}
	from.busy = true
	return cmp.Or(
		c.Order(s.compute, s.copies, s.fence),
		c.Download(s.results[i], from.wide, layout.bytes(), s.copies),
		c.Record(from.reading, s.copies))
}

// mark records an event at the end of the launches and one at the end of the copies to the host.
func (s *submission) mark() error {
	for _, event := range [...]*gpu.Event{&s.computed, &s.copied} {
		if *event == 0 {
			var err error
			if *event, err = s.context.NewEvent(); err != nil {
				return err
			}
		}
	}
	return cmp.Or(s.context.Record(s.computed, s.compute), s.context.Record(s.copied, s.copies))
}

// finish waits until both events have happened, hands over the results and makes the submission idle. Errors of run,
// and those that the device reports later, are all said here.
func (s *submission) finish() error {
	device, err := s.backend.device, error(nil)
	if s.marked {
		err = device.Wait(s.computed, s.copied)
	} else {
		// Without the events everything has to be over before pinned memory is used again.
		err = device.Do(s.synchronize)
	}
	if err != nil {
		// A kernel that fails is noticed only here, and not by name.
		err = &kernels.OpError{Op: "wait", Shapes: s.shapes(), Err: err}
	}
	if err = cmp.Or(s.err, err); err == nil {
		for i, v := range s.program.Outputs() {
			layout := copyLayout{s.program.Rows(v, s.batch), s.program.Cols(v)}
			layout.unpack(s.dst[i], s.results[i].Bytes)
		}
		if s.into != nil {
			err = device.Do(s.tally)
		}
	}
	s.batch, s.dst, s.into, s.err = kernels.Batch{}, nil, nil, nil
	s.idle = append(s.idle, s)
	return outOfMemory(err)
}

// free gives back the memory and events of an idle submission.
func (s *submission) free(c *gpu.Context) {
	c.Unpin(s.loaded)
	for _, p := range s.results {
		c.Unpin(p)
	}
	for _, event := range append(s.timings.events, s.computed, s.copied) {
		c.FreeEvent(event)
	}
}
