package cuda

import (
	"fmt"
	"time"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// entry is an operation in a profile: its name, and its FLOPs as returned by Program.Describe. The name is empty for an
// Output, which takes no time on the compute stream and is not measured.
type entry struct {
	name              string
	perToken, perPair float64
}

// timings measures the operations of one batch with events on the compute stream. There is one event before the first
// entry and one after each entry. Entry i lies between events i and i+1. Its time includes the time in which the stream
// is idle because the host has not launched the operation yet.
type timings struct {
	events  []gpu.Event // reused by later batches
	entries []entry
	current entry
}

// startTiming records the first event if there is a profile.
func (s *submission) startTiming() {
	s.timings.entries = s.timings.entries[:0]
	if s.into != nil {
		s.recordTime()
	}
}

// endTiming records the event after an operation if there is a profile and the operation's entry e has a name.
func (s *submission) endTiming(e entry) {
	if s.into != nil && e.name != "" && s.Err == nil {
		s.timings.entries = append(s.timings.entries, e)
		s.recordTime()
	}
}

// recordTime records an event on the compute stream: the event that ends the last entry, or the first event if there is
// no entry.
func (s *submission) recordTime() {
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

// addTimings adds the times of a batch to the profile. All events of the batch must have happened.
func (s *submission) addTimings(c *gpu.Context) {
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
