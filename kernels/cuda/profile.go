package cuda

import (
	"fmt"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// entry is an operation in a profile: its name, and its FLOPs as kernels.FLOPs counts them.
type entry struct {
	name              string
	perToken, perPair float64
}

// timings are the measurements of one submission: an event on the compute stream before its first operation and one
// after each. Entry i lies between the events i and i+1; the wait for its launch is part of its time.
type timings struct {
	events  []gpu.Event // used again by later batches
	used    int
	entries []entry
	current entry
}

func (m *timings) reset() { m.used, m.entries = 0, m.entries[:0] }

// timed launches a step and measures it where there is a profile. An output takes no time of the compute stream.
func (s *submission) timed(step *step) error {
	if s.into == nil || step.name == "" {
		return step.launch(s)
	}
	m := &s.timings
	if m.used == 0 {
		if err := s.tick(); err != nil {
			return err
		}
	}
	m.current = step.entry
	if err := step.launch(s); err != nil {
		return err
	}
	m.entries = append(m.entries, m.current)
	return s.tick()
}

// split ends the time of a product: its activation, which is launched from here on, has an entry of its own.
func (s *submission) split(product, activation entry) error {
	if s.into == nil {
		return nil
	}
	s.timings.entries = append(s.timings.entries, product)
	s.timings.current = activation
	return s.tick()
}

// tick records the next event.
func (s *submission) tick() error {
	m := &s.timings
	if m.used == len(m.events) {
		e, err := s.context.NewTimer()
		if err != nil {
			return err
		}
		m.events = append(m.events, e)
	}
	m.used++
	return s.context.Record(m.events[m.used-1], s.compute)
}

// tally adds the times of a batch whose events have all happened to the profile.
func (s *submission) tally(c *gpu.Context) error {
	m := &s.timings
	for i, e := range m.entries {
		ms, err := c.Milliseconds(m.events[i], m.events[i+1])
		if err != nil {
			return fmt.Errorf("the profile: %w", err)
		}
		took := time.Duration(float64(ms) * float64(time.Millisecond))
		s.into.Add(e.name, kernels.FLOPs(s.batch, e.perToken, e.perPair), took)
	}
	return nil
}
