package monitor

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Run counts the events of a run. Models are computed one after the other: Plan announces each model, and Begin starts
// the next one. All other events are about the model that was started last. The methods may be called concurrently.
type Run struct {
	mu     sync.Mutex
	now    func() time.Time // time.Now, except in tests
	began  time.Time
	models []*model
	next   int    // index of the model that Begin starts
	failed int    // number of failed inputs, including those that were not announced by Plan
	m      *model // the model that was started last; nil before the first
}

// NewRun returns a run that begins now.
func NewRun() *Run { return &Run{now: time.Now, began: time.Now()} }

// model contains the counts and times of one model of a run.
type model struct {
	name             string
	left             map[string]int64 // bytes on disk that are not done yet, by input; without inputs that have ended
	files, settled   int              // number of inputs, and of inputs that Settle has counted
	sized            bool             // whether the size of every input is known
	allSize, allDone int64            // bytes on disk of all inputs except pipes, and how many are done
	computed         int64            // bytes embedded in this run
	devices          []*device
	reading, writing Stage
	halvings         int
	skipped          int64
	failed           int
	fill             fraction // tokens in the batches, and tokens that would fit in them
	history          history
	began            time.Time // time at which the first device was ready
	ended            time.Time
}

// fraction is a quotient of two sums. A percentage is the sum of parts divided by the sum of wholes, and a mean is the
// sum of values divided by their number.
type fraction struct{ part, whole float64 }

// percent returns part as a percentage of whole.
func (f fraction) percent() Value { return 100 * Value(f.part/f.whole) } // 0/0 is NaN, which means unknown

// device contains the counts, times and sensor values of a device, for one model.
type device struct {
	name, pci   string
	state       State
	file        string
	sequences   int64
	tokens      int64
	budget      int
	stage       Stage
	ready, lost time.Time
	recent      []done
	inside      func() float64
	sample      Sample
	sampled     time.Time
	utilization fraction // sum, in percent, and number of the samples that were taken while the device computed
	power       fraction // sum, in watts, and number of the samples that were taken while the device computed
	peakMemory  Value
	peakHeat    Value
}

// done is a finished batch.
type done struct {
	at     time.Time
	tokens int
}

// State is the state of a model or of a device.
type State string

// The states of models and devices.
const (
	Waiting   State = "to do" // a model that has not begun
	Loading   State = "loading"
	Computing State = "computing"
	Lost      State = "lost" // a device that has failed
	Done      State = "done"
	Stopped   State = "stopped" // a model that ended before all its inputs were done, or a device of such a model
)

// Plan announces a model with the sizes of its inputs on disk, by path. The size is 0 if it is not known.
func (r *Run) Plan(name string, sizes map[string]int64) {
	m := &model{name: name, left: maps.Clone(sizes), files: len(sizes), sized: true}
	for _, size := range sizes {
		m.allSize += size
		m.sized = m.sized && size > 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.models = append(r.models, m)
}

// Begin starts the next model.
func (r *Run) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m = r.models[r.next]
	r.next++
}

// End ends the model that was started last.
func (r *Run) End() {
	r.on(func(m *model) { m.ended = r.now() })
}

// on calls change with the model that was started last, under the lock. Before the first model it does nothing.
func (r *Run) on(change func(m *model)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m != nil {
		change(r.m)
	}
}

// device returns the device with a name. It adds the device if there is none.
func (m *model) device(name string) *device {
	if i := slices.IndexFunc(m.devices, func(d *device) bool { return d.name == name }); i >= 0 {
		return m.devices[i]
	}
	added := &device{name: name, state: Loading, sample: noSample, peakMemory: unknown, peakHeat: unknown}
	m.devices = append(m.devices, added)
	slices.SortFunc(m.devices, func(a, b *device) int {
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name)) // cuda:2 before cuda:10
	})
	return added
}

// DeviceOpening adds a device that loads weights. pci is its address on the PCI bus, or empty.
func (r *Run) DeviceOpening(name, pci string) {
	r.on(func(m *model) { m.device(name).pci = pci })
}

// DeviceReady sets the time at which a device begins to compute. For the first device, this is also the time at which
// the model begins.
func (r *Run) DeviceReady(name string) {
	r.on(func(m *model) {
		d := m.device(name)
		d.state, d.ready = Computing, r.now()
		if m.began.IsZero() {
			m.began, m.history = d.ready, newHistory(d.ready)
		}
	})
}

// DeviceLost marks a device that has failed.
func (r *Run) DeviceLost(name string) {
	r.on(func(m *model) {
		d := m.device(name)
		d.state, d.lost = Lost, r.now()
	})
}

// Batch describes a batch that was computed.
type Batch struct {
	Device, File string
	Sequences    int
	Tokens       int
	Budget       int           // maximum number of tokens in a batch of several sequences
	Bytes        int64         // approximate size of its records on disk
	Took, Waited time.Duration // computing time of the batch, and idle time of the device before it
}

// Add counts a batch that was computed.
func (r *Run) Add(b Batch) {
	r.on(func(m *model) {
		m.advance(b.File, b.Bytes)
		m.computed += b.Bytes
		m.fill.part, m.fill.whole = m.fill.part+float64(b.Tokens), m.fill.whole+float64(max(b.Budget, b.Tokens))
		d := m.device(b.Device)
		d.file, d.budget = b.File, b.Budget
		d.sequences, d.tokens = d.sequences+int64(b.Sequences), d.tokens+int64(b.Tokens)
		d.stage.add(b.Took, b.Waited)
		d.addRecent(r.now(), b.Tokens)
		m.history.add(b.Device, r.now(), b.Took, b.Tokens)
	})
}

// SpanKnown counts bytes of an input file as done, because the results of their records were known before, for example
// from an earlier run.
func (r *Run) SpanKnown(file string, bytes int64) {
	r.on(func(m *model) { m.advance(file, bytes) })
}

// advance counts bytes of a file as done. It counts no more than the file has left.
func (m *model) advance(file string, bytes int64) {
	bytes = min(bytes, m.left[file])
	m.left[file] -= bytes
	m.allDone += bytes
}

// SpanRead adds two times of a reader for a group of records: busy, in which it read and tokenized them, and waiting,
// in which it first waited until earlier records were computed and written.
func (r *Run) SpanRead(busy, waiting time.Duration) {
	r.on(func(m *model) { m.reading.add(busy, waiting) })
}

// SpanWritten adds two times of a writer for a group of records: busy, in which it wrote their embeddings, and waiting,
// in which it waited for the embeddings.
func (r *Run) SpanWritten(busy, waiting time.Duration) {
	r.on(func(m *model) { m.writing.add(busy, waiting) })
}

// Settle counts an input that has finished, has failed or was complete before the run. A failed input counts for the
// run even if Plan has not announced it, for example because it could not be read before the first model.
func (r *Run) Settle(file string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed {
		r.failed++
	}
	m := r.m
	if m == nil {
		return
	}
	size, planned := m.left[file]
	if !planned {
		return
	}
	m.settled++
	m.allDone += size
	delete(m.left, file) // later batches of a failed file then count no bytes
	if failed {
		m.failed++
	}
}

// Halved counts that a device has run out of memory. Its later batches have at most budget tokens.
func (r *Run) Halved(device string, budget int) {
	r.on(func(m *model) {
		m.halvings++
		m.device(device).budget = budget
	})
}

// Skipped counts records that were left out.
func (r *Run) Skipped(records int64) {
	r.on(func(m *model) { m.skipped += records })
}

// Inside is called when a device begins with a long record. The function part returns the share of the record that has
// been computed, from 0 to 1. Inside is called with nil when the record is finished.
func (r *Run) Inside(device string, part func() float64) {
	r.on(func(m *model) { m.device(device).inside = part })
}

// Sample stores the latest sample of the device whose address on the PCI bus is pci. While the device computes, Sample
// also adds it to the means and the peaks of the device.
func (r *Run) Sample(pci string, s Sample) {
	r.on(func(m *model) {
		for _, d := range m.devices {
			if d.pci != pci {
				continue
			}
			d.sample, d.sampled = s, r.now()
			if d.state != Computing || !m.ended.IsZero() {
				continue
			}
			d.utilization.count(s.Utilization)
			d.power.count(s.Power)
			d.peakMemory = larger(d.peakMemory, s.MemoryUsed)
			d.peakHeat = larger(d.peakHeat, s.Temperature)
		}
	})
}

// count adds a value to a mean if the value is known.
func (f *fraction) count(v Value) {
	if v.known() {
		f.part, f.whole = f.part+float64(v), f.whole+1
	}
}

// mean returns the mean of the values that were counted. It is unknown if there are none.
func (f fraction) mean() Value { return Value(f.part / f.whole) }

// larger returns the larger of two values. If only one value is known, it returns that value.
func larger(a, b Value) Value {
	if !a.known() || b > a {
		return b
	}
	return a
}

// recentTime is the time over which the present rate of a device is measured.
const recentTime = 10 * time.Second

// addRecent adds a batch to d.recent and removes batches that ended too long ago for the present rate. It always keeps
// the last two batches.
func (d *device) addRecent(now time.Time, tokens int) {
	d.recent = append(d.recent, done{now, tokens})
	for len(d.recent) > 2 && now.Sub(d.recent[1].at) > recentTime {
		d.recent = d.recent[1:]
	}
}

// rate returns the present tokens per second of the device: those of the recent batches without the first, divided by
// the time since the first one ended. It is unknown if there are fewer than two batches.
func (d *device) rate(now time.Time) Value {
	if len(d.recent) < 2 {
		return unknown
	}
	tokens := 0
	for _, b := range d.recent[1:] {
		tokens += b.tokens
	}
	return perSecond(int64(tokens), now.Sub(d.recent[0].at))
}

// perSecond returns n divided by d in seconds, or unknown if d is not positive.
func perSecond(n int64, d time.Duration) Value {
	if d <= 0 {
		return unknown
	}
	return Value(float64(n) / d.Seconds())
}
