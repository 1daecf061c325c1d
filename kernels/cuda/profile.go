package cuda

import (
	"fmt"
	"time"

	"seqembed/kernels"
)

// profile is a stream's measuring: an event on the compute stream before the
// first operation since a Wait and one after each. What lies between two of
// them is the time of the operation, the wait for its launch included. The
// first field belongs to the caller's goroutine, the others to the device's
// thread.
type profile struct {
	into *kernels.Profile // or nil

	events []handle // made when first needed, and used again after a Wait
	used   int
	marks  []mark
}

// mark is an operation that ends at an event.
type mark struct {
	into  *kernels.Profile
	batch kernels.Batch
	ops   []kernels.Op
}

// Profile makes p what operations are added to.
func (s *stream) Profile(p *kernels.Profile) {
	s.flush()
	s.profile.into = p
}

// timed adds the measuring of operations to what launches them.
func (s *stream) timed(launch func() error, ops ...kernels.Op) func() error {
	if s.profile.into == nil {
		return launch
	}
	m := mark{s.profile.into, s.batch, ops}
	return func() error {
		p := &s.profile
		if p.used == 0 {
			if err := s.tick(); err != nil {
				return err
			}
		}
		if err := launch(); err != nil {
			return err
		}
		p.marks = append(p.marks, m)
		return s.tick()
	}
}

// tick records the next event.
func (s *stream) tick() error {
	p, drv := &s.profile, s.device.drv
	if p.used == len(p.events) {
		var e handle
		if err := drv.cuEventCreate(&e, eventDefault).err("cuEventCreate"); err != nil {
			return err
		}
		p.events = append(p.events, e)
	}
	p.used++
	return drv.cuEventRecord(p.events[p.used-1], s.compute).err("cuEventRecord")
}

// tally adds what has been measured to the profiles, unless something failed
// and not every event has happened.
func (s *stream) tally(whole bool) error {
	return s.device.thread.call(func() error {
		p := &s.profile
		defer func() { p.used, p.marks = 0, p.marks[:0] }()
		if !whole {
			return nil
		}
		for i, m := range p.marks {
			var ms float32
			if err := s.device.drv.cuEventElapsedTime(&ms, p.events[i], p.events[i+1]).err("cuEventElapsedTime"); err != nil {
				return fmt.Errorf("the profile: %w", err)
			}
			m.into.Add(m.batch, time.Duration(float64(ms)*float64(time.Millisecond)), m.ops...)
		}
		return nil
	})
}
