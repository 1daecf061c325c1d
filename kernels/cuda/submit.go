package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// submission is one batch. Its first fields are set by the caller's goroutine, the others by the device's thread, which
// closes sent then.
type submission struct {
	*runner
	batch kernels.Batch
	dst   [][]float32
	into  *kernels.Profile // or nil

	blocks  int // of an attention
	broken  error
	reads   []reading // to be handed over
	taken   []*slab
	marker  marker
	timings timings
	failed  error // of the marker itself
	sent    chan struct{}
}

// rows is T of the batch.
func (s *submission) rows() int { return len(s.batch.IDs) }

// pin takes pinned memory until the submission has been waited for.
func (s *submission) pin(bytes int) (*slab, error) {
	piece, err := s.runner.pin(bytes)
	if err == nil {
		s.taken = append(s.taken, piece)
	}
	return piece, err
}

// marker is a pair of events at the end of a submission: of the compute stream and of the results. It is used again
// after it has been waited for.
type marker struct{ computed, copied handle }

// Start lets the device's thread launch the program and returns at once.
func (r *runner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	if err := r.program.CheckRun(r.limits, b, dst); err != nil {
		return func() error { return err }
	}
	s := &submission{runner: r, batch: b, dst: dst, into: r.profile, sent: make(chan struct{})}
	posted := r.device.thread.post(func() {
		defer close(s.sent)
		s.broken = s.run()
		s.failed = s.mark()
	})
	if !posted {
		s.failed = errClosed
		close(s.sent)
	}
	return s.finish
}

// run launches everything, up to the first launch that fails.
func (s *submission) run() error {
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

// mark records a pair of events at the end of what computes and of what is copied back.
func (s *submission) mark() error {
	d, r := s.device, s.runner
	if n := len(r.markers); n > 0 {
		s.marker, r.markers = r.markers[n-1], r.markers[:n-1]
	} else {
		computed, err := d.newEvent()
		if err != nil {
			return err
		}
		copied, err := d.newEvent()
		if err != nil {
			d.drv.cuEventDestroy(computed)
			return err
		}
		s.marker = marker{computed, copied}
	}
	return first(
		d.drv.cuEventRecord(s.marker.computed, r.compute).err("cuEventRecord"),
		d.drv.cuEventRecord(s.marker.copied, r.copies).err("cuEventRecord"))
}

// finish waits until both have passed the marker, hands over the results and gives back what the submission held.
func (s *submission) finish() error {
	<-s.sent
	d, r, err := s.device, s.runner, s.failed
	if err != nil {
		// Without a marker everything has to be over before slabs are given back.
		_ = r.waiter.call(func() error {
			d.drv.cuStreamSynchronize(r.compute)
			d.drv.cuStreamSynchronize(r.loads)
			d.drv.cuStreamSynchronize(r.copies)
			return nil
		})
	} else {
		err = r.waiter.call(func() error {
			return first(
				d.drv.cuEventSynchronize(s.marker.computed).err("cuEventSynchronize"),
				d.drv.cuEventSynchronize(s.marker.copied).err("cuEventSynchronize"))
		})
	}
	if err != nil {
		// A kernel that fails is noticed only here, and not by name.
		err = &kernels.OpError{Op: "wait", Shapes: s.shapes(), Err: err}
	}
	if err = first(s.broken, err); err == nil {
		for _, o := range s.reads {
			o.layout.unpack(o.dst, o.piece.bytes)
		}
	}
	release := func() error {
		for _, piece := range s.taken {
			piece.taken = false
		}
		if s.marker != (marker{}) {
			r.markers = append(r.markers, s.marker)
		}
		return s.tally(err == nil)
	}
	if s.into != nil {
		return first(err, d.thread.call(release))
	}
	d.thread.post(func() { _ = release() }) // without a profile it cannot fail
	return err
}
