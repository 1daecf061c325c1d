package cuda

import (
	"errors"
	"fmt"

	"seqembed/kernels"
)

// stream runs operations on one device. The fields of the first group belong
// to the caller's goroutine, those of the second to the device's thread, which
// does in order what the first sends it.
//
// On the device an operation goes to the compute stream. The batch's ids go
// up, and results come down, on streams of their own; events order the three.
type stream struct {
	backend *Backend
	device  *device
	limits  kernels.Limits
	batch   kernels.Batch
	err     error      // the first mistake of the caller
	reads   []*reading // of what has not been submitted
	waiter  *thread    // waits for events, so that the device's thread never does
	profile profile

	broken    error    // the first launch that failed of what has not been submitted
	slabs     []*slab  // every one that was pinned
	taken     []*slab  // by what has not been submitted
	markers   []marker // that can be used again
	compute   handle
	loads     handle // to the device
	copies    handle // from the device
	point     handle // event: recorded and waited for in one go
	workspace devicePtr
	tables    *tables
	turns     map[string]*turns    // by the bytes of the frequencies
	constants map[string]devicePtr // by their bytes
	products  map[int]*buffer      // by their columns: what cuBLAS leaves for a gate
	memories  []*memory
}

// slab is pinned memory for a copy that is under way. It is taken and given
// back on the device's thread: back when its submission has been waited for.
type slab struct {
	pinned
	taken bool
}

// newStream makes the streams, the events, the batch's tables and the
// workspace of cuBLAS.
func newStream(b *Backend, limits kernels.Limits) (*stream, error) {
	s := &stream{backend: b, device: b.device, limits: limits, turns: map[string]*turns{},
		constants: map[string]devicePtr{}, products: map[int]*buffer{}}
	d := s.device
	err := d.thread.call(func() error {
		var err error
		try := func(p *handle, make func() (handle, error)) {
			if err == nil {
				*p, err = make()
			}
		}
		try(&s.compute, d.newStream)
		try(&s.loads, d.newStream)
		try(&s.copies, d.newStream)
		try(&s.point, d.newEvent)
		if err == nil {
			s.tables, err = newTables(d, limits, attentionRows)
		}
		if err == nil && b.products != nil {
			s.workspace, err = d.alloc(workspaceBytes)
		}
		return err
	})
	if err == nil {
		s.waiter, err = startThread(
			func() error { return d.drv.cuCtxSetCurrent(d.context).err("cuCtxSetCurrent") },
			func() { d.drv.cuCtxSetCurrent(0) })
	}
	if err != nil {
		return nil, first(fmt.Errorf("a stream on %s: %w", d.Name, err), s.Close())
	}
	return s, nil
}

// Close waits for what is running and frees everything.
func (s *stream) Close() error {
	d := s.device
	err := d.thread.call(func() error {
		for _, stream := range []handle{s.compute, s.loads, s.copies} {
			if stream != 0 {
				d.drv.cuStreamSynchronize(stream) // an error was or will be reported by Wait
			}
		}
		for _, m := range s.memories {
			m.free(d)
		}
		for _, slab := range s.slabs {
			d.unpin(slab.pinned)
		}
		for _, t := range s.turns {
			d.free(t.at)
		}
		for _, p := range s.constants {
			d.free(p)
		}
		d.free(s.workspace)
		s.tables.free(d)
		events := append(s.profile.free, s.point)
		for _, m := range s.markers {
			events = append(events, m.computed, m.copied)
		}
		for _, event := range events {
			if event != 0 {
				d.drv.cuEventDestroy(event)
			}
		}
		for _, stream := range []handle{s.compute, s.loads, s.copies} {
			if stream != 0 {
				d.drv.cuStreamDestroy(stream)
			}
		}
		s.memories, s.slabs, s.markers, s.turns, s.constants, s.profile.free = nil, nil, nil, nil, nil, nil
		s.tables, s.workspace, s.point, s.compute, s.loads, s.copies = nil, 0, 0, 0, 0, 0
		return nil
	})
	if s.waiter != nil {
		s.waiter.stop()
		s.waiter = nil
	}
	if errors.Is(err, errClosed) {
		return nil // the context went first, and everything with it
	}
	return err
}

// accepts reports whether an operation should run; if its shapes do not fit,
// the error sticks.
func (s *stream) accepts(o kernels.Op) bool {
	if s.err == nil {
		s.err = o.Check(s.batch)
	}
	return s.err == nil
}

// refuse makes an error about an operation stick.
func (s *stream) refuse(op, shapes, format string, args ...any) {
	if s.err == nil {
		s.err = &kernels.OpError{Op: op, Shapes: shapes, Err: fmt.Errorf(format, args...)}
	}
}

// enqueue sends what launches an operation to the device's thread, where it
// does nothing once a launch has failed. shapes is asked only for an error.
func (s *stream) enqueue(op string, shapes func() string, launch func() error) {
	sent := s.device.thread.post(func() {
		if s.broken != nil {
			return
		}
		if err := launch(); err != nil {
			s.broken = &kernels.OpError{Op: op, Shapes: shapes(), Err: err}
		}
	})
	if !sent {
		s.refuse(op, shapes(), "%w", errClosed)
	}
}

// launch enqueues a kernel on the compute stream; it runs on the device's
// thread.
func (s *stream) launch(kernel string, g geometry, params ...param) error {
	return s.device.launch(s.compute, kernel, g, params...)
}

// typed is the name of a kernel of the operands' type.
func (s *stream) typed(kernel string) string { return kernel + "_" + s.backend.dtype.String() }

// slab takes pinned memory of at least that many bytes, on the device's
// thread.
func (s *stream) slab(bytes int) (*slab, error) {
	var best *slab
	for _, c := range s.slabs {
		if !c.taken && len(c.bytes) >= bytes && (best == nil || len(c.bytes) < len(best.bytes)) {
			best = c
		}
	}
	if best == nil {
		p, err := s.device.pin(bytes)
		if err != nil {
			return nil, err
		}
		best = &slab{pinned: p}
		s.slabs = append(s.slabs, best)
	}
	best.taken = true
	s.taken = append(s.taken, best)
	return best, nil
}
