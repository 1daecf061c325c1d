package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// submission is a batch on its way, with the pinned memory and the events that it needs. A runner has as many as there
// have been batches at once and uses them again, so that a batch allocates nothing once that many have run.
//
// The fields of the first group do not change, those of the second are set by the caller's goroutine and the others by
// the device's thread, which sends to sent then.
type submission struct {
	*runner
	start, sync func()        // run on the device's thread and on the waiter
	wait        func() error  // finish
	sent        chan struct{} // of capacity 1, so that the device's thread never waits for the caller
	synced      chan error    // likewise of the waiter

	batch kernels.Batch
	dst   [][]float32
	into  *kernels.Profile // or nil

	blocks           int // of an attention
	broken           error
	failed           error    // of the events below themselves
	loaded           pinned   // what the host sends
	results          []pinned // of each output
	computed, copied handle   // events: the end of the computing, and that of the results' copies
	timings          timings
}

// submission takes one that is idle, or a new one.
func (r *runner) submission() *submission {
	if n := len(r.idle); n > 0 {
		s := r.idle[n-1]
		r.idle = r.idle[:n-1]
		return s
	}
	s := &submission{runner: r, sent: make(chan struct{}, 1), synced: make(chan error, 1)}
	s.results = make([]pinned, len(r.program.Outputs()))
	s.start = func() {
		s.broken = s.run()
		s.failed = s.mark()
		s.sent <- struct{}{}
	}
	s.sync = func() {
		drv := s.device.drv
		s.synced <- first(
			drv.cuEventSynchronize(s.computed).err("cuEventSynchronize"),
			drv.cuEventSynchronize(s.copied).err("cuEventSynchronize"))
	}
	s.wait = s.finish
	r.submissions = append(r.submissions, s)
	return s
}

// rows is T of the batch.
func (s *submission) rows() int { return len(s.batch.IDs) }

// Start lets the device's thread launch the program and returns at once.
func (r *runner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	if err := r.program.CheckRun(r.limits, b, dst); err != nil {
		return func() error { return err }
	}
	s := r.submission()
	s.batch, s.dst, s.into = b, dst, r.profile
	if !r.device.thread.post(s.start) {
		s.broken, s.failed = nil, errClosed
		s.sent <- struct{}{}
	}
	return s.wait
}

// run launches everything, up to the first launch that fails.
func (s *submission) run() error {
	s.timings.reset()
	if err := s.begin(s); err != nil {
		return &kernels.OpError{Op: "batch", Shapes: s.shapes(), Err: err}
	}
	for i := range s.steps {
		if err := s.timed(&s.steps[i]); err != nil {
			return &kernels.OpError{Op: s.steps[i].op, Shapes: s.steps[i].shapes, Err: err}
		}
	}
	return nil
}

func (s *submission) shapes() string {
	return fmt.Sprintf("[%d tokens, %d sequences]", len(s.batch.IDs), s.batch.Sequences())
}

// mark records an event at the end of what computes and one at the end of what is copied back.
func (s *submission) mark() error {
	d := s.device
	for _, event := range [...]*handle{&s.computed, &s.copied} {
		if *event == 0 {
			var err error
			if *event, err = d.newEvent(); err != nil {
				return err
			}
		}
	}
	return first(
		d.drv.cuEventRecord(s.computed, s.compute).err("cuEventRecord"),
		d.drv.cuEventRecord(s.copied, s.copies).err("cuEventRecord"))
}

// finish waits until both events have happened, hands over the results and makes the submission idle.
func (s *submission) finish() error {
	<-s.sent
	err := s.failed
	switch {
	case err != nil:
		// Without the events everything has to be over before pinned memory is used again.
		drv := s.device.drv
		_ = s.waiter.call(func() error {
			drv.cuStreamSynchronize(s.compute)
			drv.cuStreamSynchronize(s.loads)
			drv.cuStreamSynchronize(s.copies)
			return nil
		})
	case s.waiter.post(s.sync):
		err = <-s.synced
	default:
		err = errClosed
	}
	if err != nil {
		// A kernel that fails is noticed only here, and not by name.
		err = &kernels.OpError{Op: "wait", Shapes: s.shapes(), Err: err}
	}
	if err = first(s.broken, err); err == nil {
		for i, v := range s.program.Outputs() {
			layout := copyLayout{s.program.Rows(v, s.batch), s.program.Cols(v)}
			layout.unpack(s.dst[i], s.results[i].bytes)
		}
		if s.into != nil {
			err = s.device.thread.call(s.tally)
		}
	}
	s.batch, s.dst, s.into = kernels.Batch{}, nil, nil
	s.idle = append(s.idle, s)
	return err
}

// free gives back what a submission that is idle holds, on the device's thread.
func (s *submission) free() {
	d := s.device
	d.unpin(s.loaded)
	for _, p := range s.results {
		d.unpin(p)
	}
	for _, event := range append(s.timings.events, s.computed, s.copied) {
		if event != 0 {
			d.drv.cuEventDestroy(event)
		}
	}
}
