package cuda

import (
	"fmt"

	"seqembed/kernels"
)

// submission is what was enqueued between two Submits. Its first fields are
// set by the caller's goroutine, the others by the device's thread, which
// closes sent then.
type submission struct {
	batch   kernels.Batch
	mistake error      // the first of the caller
	reads   []*reading // to be handed over

	broken error // the first launch that failed
	marker marker
	slabs  []*slab
	lap    lap
	failed error // of the marker itself
	sent   chan struct{}
}

// marker is a pair of events at the end of a submission: of the compute stream
// and of the results. It is used again after it has been waited for.
type marker struct{ computed, copied handle }

// Submit marks the end of what computes and of what is copied back and returns at once.
func (s *stream) Submit() (wait func() error) {
	sub := &submission{batch: s.batch, mistake: s.err, reads: s.reads, sent: make(chan struct{})}
	s.err, s.reads = nil, nil
	posted := s.device.thread.post(func() {
		defer close(sub.sent)
		sub.broken, s.broken = s.broken, nil
		sub.slabs, s.taken = s.taken, nil
		sub.lap, s.profile.lap = s.profile.lap, lap{}
		sub.failed = s.mark(sub)
	})
	if !posted {
		sub.failed = errClosed
		close(sub.sent)
	}
	return func() error { return s.finish(sub) }
}

// Wait submits and waits.
func (s *stream) Wait() error { return s.Submit()() }

// mark records a pair of events, on the device's thread.
func (s *stream) mark(sub *submission) error {
	d := s.device
	if n := len(s.markers); n > 0 {
		sub.marker, s.markers = s.markers[n-1], s.markers[:n-1]
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
		sub.marker = marker{computed, copied}
	}
	return first(
		d.drv.cuEventRecord(sub.marker.computed, s.compute).err("cuEventRecord"),
		d.drv.cuEventRecord(sub.marker.copied, s.copies).err("cuEventRecord"))
}

// finish waits until both have passed the marker, hands over what was
// read and gives back what the submission held.
func (s *stream) finish(sub *submission) error {
	<-sub.sent
	d, err := s.device, sub.failed
	if err != nil {
		// Without a marker everything has to be over before slabs are given back.
		_ = s.waiter.call(func() error {
			d.drv.cuStreamSynchronize(s.compute)
			d.drv.cuStreamSynchronize(s.loads)
			d.drv.cuStreamSynchronize(s.copies)
			return nil
		})
	} else {
		err = s.waiter.call(func() error {
			return first(
				d.drv.cuEventSynchronize(sub.marker.computed).err("cuEventSynchronize"),
				d.drv.cuEventSynchronize(sub.marker.copied).err("cuEventSynchronize"))
		})
	}
	if err != nil {
		// A kernel that fails is noticed only here, and not by name.
		shapes := fmt.Sprintf("[%d tokens, %d sequences]", len(sub.batch.IDs), sub.batch.Sequences())
		err = &kernels.OpError{Op: "wait", Shapes: shapes, Err: err}
	}
	// Nothing is sent after a mistake, so that a failed launch came before it.
	err = first(sub.broken, sub.mistake, err)
	if err == nil {
		for _, r := range sub.reads {
			r.layout.unpack(r.dst, r.piece.bytes)
		}
	}
	tally := s.tally(sub.lap, err == nil)
	release := func() error {
		for _, slab := range sub.slabs {
			slab.taken = false
		}
		if sub.marker != (marker{}) {
			s.markers = append(s.markers, sub.marker)
		}
		return tally()
	}
	if len(sub.lap.marks) > 0 {
		return first(err, d.thread.call(release))
	}
	d.thread.post(func() { _ = release() }) // without a profile it cannot fail
	return err
}
