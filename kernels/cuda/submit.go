package cuda

import (
	"cmp"
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// submission is a batch on its way, with the pinned memory and the events that it needs. A runner has as many as there
// have been batches at once and uses them again, so that a batch allocates nothing once that many have run.
type submission struct {
	*runner
	*gpu.Context              // while run runs
	wait         func() error // finish

	batch kernels.Batch
	dst   [][]float32
	into  *kernels.Profile // or nil

	blocks           int          // of an attention
	err              error        // of run
	marked           bool         // the events below have been recorded
	loaded           gpu.Pinned   // sent by the host
	results          []gpu.Pinned // of each output
	computed, copied gpu.Event    // the end of the computing, and that of the results' copies
	timings          timings
}

// tokens is T of the batch.
func (s *submission) tokens() int { return len(s.batch.IDs) }

// failure names an operation, or a part of the way that is none, in an error.
func (s *submission) failure(op string, err error) error {
	shapes := fmt.Sprintf("[%d tokens, %d sequences]", s.tokens(), s.batch.Sequences())
	return &kernels.OpError{Op: op, Shapes: shapes, Err: err}
}

// run launches everything, up to the first launch that fails, and records the events for which finish waits: the one at
// the end of the launches and the one at the end of the copies to the host.
func (s *submission) run(c *gpu.Context) {
	s.Context = c
	s.launchAll()
	failed := s.Err
	s.Err = nil
	if s.copied == 0 {
		s.computed, s.copied = s.resources.NewEvent(c), s.resources.NewEvent(c)
	}
	s.Record(s.computed, s.compute)
	s.Record(s.copied, s.copies)
	if s.marked = s.Err == nil; !s.marked {
		s.Err = s.failure("wait", s.Err)
	}
	s.Err = cmp.Or(failed, s.Err)
	s.Context = nil
}

func (s *submission) launchAll() {
	if s.begin(); s.Err != nil {
		s.Err = s.failure("batch", s.Err)
		return
	}
	s.startTiming()
	for i := range s.steps {
		step := &s.steps[i]
		s.timings.current = step.entry
		for _, m := range step.writes {
			s.waitForReaders(m)
		}
		step.launch(s)
		if s.lap(s.timings.current); s.Err != nil {
			s.Err = &kernels.OpError{Op: step.op, Shapes: step.shapes, Err: s.Err}
			return
		}
	}
}

// launch enqueues a kernel on the compute stream for a result of those rows and columns.
func (s *submission) launch(k kernel, rows, cols int, params ...gpu.Param) {
	if len(params) != k.params {
		s.Fail(fmt.Errorf("%s is given %d parameters and takes %d", k.Name, len(params), k.params))
	}
	x, y := k.tile.grid(rows, cols)
	s.Launch(s.compute, k.Kernel, x, y, params...)
}

// waitForReaders makes the compute stream wait for pending copies of m to the host, before a launch overwrites it.
func (s *submission) waitForReaders(m *memory) {
	if m.busy {
		m.busy = false
		s.Await(s.compute, m.reading)
	}
}

// output copies a value to the host beside the operations that follow.
func (s *submission) output(i int, v kernels.Value, from *matrix) {
	row, most := 4*pitch(from.cols), s.limits.Tokens
	if s.program.PerSequence(v) {
		most = s.limits.Sequences
	}
	if s.results[i].At == nil {
		// The size is that of the limits, so that later batches fit as well.
		s.results[i] = s.resources.Pin(s.Context, most*row)
	}
	if from.reading == 0 {
		from.reading = s.resources.NewEvent(s.Context)
	}
	from.busy = from.reading != 0
	s.Order(s.compute, s.copies, s.fence)
	s.Download(s.results[i], from.wide, s.program.Rows(v, s.batch)*row, s.copies)
	s.Record(from.reading, s.copies)
}

// finish waits until both events have happened, hands over the results and makes the submission idle. Errors of run,
// and those that the device reports later, are all said here.
func (s *submission) finish() error {
	device, err := s.backend.device, error(nil)
	if s.marked {
		err = device.Wait(s.computed, s.copied)
	} else {
		// Without the events everything has to be over before pinned memory is used again.
		err = device.Do(s.resources.Synchronize)
	}
	if err != nil {
		err = s.failure("wait", err) // a kernel that fails is noticed only here, and not by name
	}
	if err = cmp.Or(s.err, err); err == nil {
		for i, v := range s.program.Outputs() {
			cols := s.program.Cols(v)
			for r := range s.program.Rows(v, s.batch) {
				copy(s.dst[i][r*cols:(r+1)*cols], gpu.View[float32](s.results[i], 4*r*pitch(cols), cols))
			}
		}
		if s.into != nil {
			err = device.Do(s.tally)
		}
	}
	s.batch, s.dst, s.into, s.err = kernels.Batch{}, nil, nil, nil
	s.idle = append(s.idle, s)
	return outOfMemory(err)
}
