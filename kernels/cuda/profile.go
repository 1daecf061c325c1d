package cuda

import (
	"fmt"
	"time"

	"seqembed/kernels"
)

// profile is a stream's measuring: an event on the compute stream before the
// first operation of a submission and one after each. What lies between two of
// them is the time of the operation, the wait for its launch included. The
// first field belongs to the caller's goroutine, the others to the device's
// thread.
type profile struct {
	into *kernels.Profile // or nil
	lap  lap              // of what has not been submitted
	mark *mark            // of the operation that is being launched, or nil
	free []handle         // events that can be used again
}

// lap is what one submission measures: operation i lies between the events i
// and i+1.
type lap struct {
	events []handle
	marks  []mark
}

type mark struct {
	into  *kernels.Profile
	name  string
	flops float64
}

// Profile makes p what operations are added to.
func (s *stream) Profile(p *kernels.Profile) {
	s.profile.into = p
}

// timed adds the measuring of an operation to what launches it.
func (s *stream) timed(launch func() error, o kernels.Op) func() error {
	if s.profile.into == nil {
		return launch
	}
	m := mark{into: s.profile.into}
	m.name, m.flops = kernels.Describe(o, s.batch)
	return func() error {
		l := &s.profile.lap
		if len(l.events) == 0 {
			if err := s.tick(l); err != nil {
				return err
			}
		}
		current := m
		s.profile.mark = &current
		err := launch()
		s.profile.mark = nil
		if err != nil {
			return err
		}
		l.marks = append(l.marks, current)
		return s.tick(l)
	}
}

// productDone ends the time of a Linear's product: its activation, which is
// launched from here on, has an entry of its own.
func (s *stream) productDone(o kernels.Linear) error {
	p := &s.profile
	if p.mark == nil {
		return nil
	}
	done, then := *p.mark, o.Then
	o.Then = kernels.Identity
	done.name, _ = kernels.Describe(o, kernels.Batch{})
	p.mark.name, p.mark.flops = then.String(), 0
	p.lap.marks = append(p.lap.marks, done)
	return s.tick(&p.lap)
}

// tick records the next event of a lap.
func (s *stream) tick(l *lap) error {
	p, drv := &s.profile, s.device.drv
	var e handle
	if n := len(p.free); n > 0 {
		e, p.free = p.free[n-1], p.free[:n-1]
	} else if err := drv.cuEventCreate(&e, eventDefault).err("cuEventCreate"); err != nil {
		return err
	}
	l.events = append(l.events, e)
	return drv.cuEventRecord(e, s.compute).err("cuEventRecord")
}

// tally returns what adds a lap to its profiles, on the device's thread:
// nothing, when something failed and not every event may have happened.
func (s *stream) tally(l lap, whole bool) func() error {
	return func() error {
		s.profile.free = append(s.profile.free, l.events...)
		if !whole {
			return nil
		}
		for i, m := range l.marks {
			var ms float32
			if err := s.device.drv.cuEventElapsedTime(&ms, l.events[i], l.events[i+1]).err("cuEventElapsedTime"); err != nil {
				return fmt.Errorf("the profile: %w", err)
			}
			m.into.Add(m.name, m.flops, time.Duration(float64(ms)*float64(time.Millisecond)))
		}
		return nil
	}
}
