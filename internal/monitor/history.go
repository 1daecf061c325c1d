package monitor

import (
	"slices"
	"time"
)

// maxIntervals bounds the number of intervals in a history, and so its memory.
const maxIntervals = 240

// firstInterval is the width of the intervals of a new history, before it doubles.
const firstInterval = 10 * time.Millisecond

// history contains the numbers of tokens that each device of a model has computed in intervals of time. All intervals
// have the same width. The width doubles when there would be more than maxIntervals intervals.
type history struct {
	since  time.Time
	width  time.Duration
	tokens map[string][]float64 // number of tokens in each interval, by device
}

// newHistory returns a history without tokens.
func newHistory(since time.Time) history {
	return history{since: since, width: firstInterval, tokens: map[string][]float64{}}
}

// add adds the tokens of a batch, spread evenly over the time in which it was computed.
func (h *history) add(device string, until time.Time, took time.Duration, tokens int) {
	if h.tokens == nil { // DeviceReady was not called before
		*h = newHistory(until.Add(-took))
	}
	to := until.Sub(h.since)
	from := max(0, to-took)
	for to >= maxIntervals*h.width {
		h.double()
	}
	counts := h.tokens[device]
	last := int(to / h.width)
	for len(counts) <= last {
		counts = append(counts, 0)
	}
	if h.tokens[device] = counts; to <= from {
		counts[last] += float64(tokens)
		return
	}
	for i := int(from / h.width); i <= last; i++ {
		begin := max(from, time.Duration(i)*h.width)
		end := min(to, time.Duration(i+1)*h.width)
		counts[i] += float64(tokens) * float64(end-begin) / float64(to-from)
	}
}

// double doubles the width of the intervals: it adds up the tokens of each pair of neighbours.
func (h *history) double() {
	h.width *= 2
	for device, counts := range h.tokens {
		for i, n := range counts {
			if i%2 == 0 {
				counts[i/2] = n
			} else {
				counts[i/2] += n
			}
		}
		h.tokens[device] = counts[:(len(counts)+1)/2]
	}
}

// Throughput contains the numbers of tokens that each device of a model has computed in intervals of time. The first
// interval begins when the first device is ready.
type Throughput struct {
	Width   time.Duration // width of an interval
	Time    time.Duration // time from the beginning of the first interval until the model ended, or until now
	Devices []string
	Tokens  [][]float64 // by device and interval; all devices have the same number of intervals
}

// Throughput returns the throughput of each model, in the order of Snapshot.Models.
func (r *Run) Throughput() (list []Throughput) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.models {
		t := Throughput{Width: m.history.width}
		if !m.began.IsZero() {
			end := m.ended
			if end.IsZero() {
				end = r.now()
			}
			t.Time = end.Sub(m.began)
		}
		longest := 0
		for _, d := range m.devices {
			t.Devices = append(t.Devices, d.name)
			counts := slices.Clone(m.history.tokens[d.name])
			longest = max(longest, len(counts))
			t.Tokens = append(t.Tokens, counts)
		}
		for i, counts := range t.Tokens {
			t.Tokens[i] = append(counts, make([]float64, longest-len(counts))...)
		}
		list = append(list, t)
	}
	return list
}
