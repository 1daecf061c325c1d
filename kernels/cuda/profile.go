package cuda

import (
	"fmt"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// entry is an operation in a profile: its name, and its FLOPs as kernels.FLOPs counts them. An output has no name: it
// takes no time of the compute stream.
type entry struct {
	name              string
	perToken, perPair float64
}

// timings are the measurements of one submission: an event on the compute stream before its first operation and one
// after each. Entry i lies between the events i and i+1; the wait for its launch is part of its time.
type timings struct {
	events  []gpu.Event // used again by later batches
	entries []entry
	current entry
}

// startTiming records the first event where there is a profile.
func (s *submission) startTiming() {
	s.timings.entries = s.timings.entries[:0]
	if s.into != nil {
		s.tick()
	}
}

// lap ends the time of an operation.
func (s *submission) lap(e entry) {
	if s.into != nil && e.name != "" && s.Err == nil {
		s.timings.entries = append(s.timings.entries, e)
		s.tick()
	}
}

// tick records the event behind the last entry.
func (s *submission) tick() {
	m := &s.timings
	at := len(m.entries)
	if at == len(m.events) {
		e := s.resources.NewTimer(s.Context)
		if s.Err != nil {
			return
		}
		m.events = append(m.events, e)
	}
	s.Record(m.events[at], s.compute)
}

// tally adds the times of a batch whose events have all happened to the profile.
func (s *submission) tally(c *gpu.Context) {
	m := &s.timings
	for i, e := range m.entries {
		ms := c.Milliseconds(m.events[i], m.events[i+1])
		if c.Err != nil {
			c.Err = fmt.Errorf("the profile: %w", c.Err)
			return
		}
		took := time.Duration(float64(ms) * float64(time.Millisecond))
		s.into.Add(e.name, kernels.FLOPs(s.batch, e.perToken, e.perPair), took)
	}
}
