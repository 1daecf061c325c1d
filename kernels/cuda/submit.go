package cuda

import (
	"cmp"
	"fmt"

	"seqembed/kernels"
	"seqembed/kernels/cuda/gpu"
)

// submission is a batch in flight, with its pinned memory and its events. A runner reuses its submissions: it makes a
// new one only when all others are in flight.
type submission struct {
	*runner
	*gpu.Context              // set only during the method run
	wait         func() error // the method finish, kept so that Start allocates nothing

	batch kernels.Batch
	dst   [][]float32
	into  *kernels.Profile // profile to which the timings are added, or nil

	blocks           int          // number of blocks of query rows for attention, see tables.cut
	err              error        // error of the method run
	recorded         bool         // whether the events computed and copied have been recorded
	loaded           gpu.Pinned   // pinned memory from which the tables of the batch are uploaded
	results          []gpu.Pinned // pinned memory to which each output of the program is downloaded
	computed, copied gpu.Event    // computed: the last kernel has finished; copied: the last download has finished
	timings          timings
}

// tokens returns the number of tokens in the batch.
func (s *submission) tokens() int { return len(s.batch.IDs) }

// failure returns an OpError for the whole batch. op names the part of the run that failed: "batch" is sending the
// batch to the device, and "wait" is waiting for the results.
func (s *submission) failure(op string, err error) error {
	shapes := fmt.Sprintf("[%d tokens, %d sequences]", s.tokens(), s.batch.Sequences())
	return &kernels.OpError{Op: op, Shapes: shapes, Err: err}
}

// run launches all operations, up to the first error. It then records two events, for which finish waits: one after the
// launches and one after the downloads.
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
	if s.recorded = s.Err == nil; !s.recorded {
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
		if s.endTiming(s.timings.current); s.Err != nil {
			s.Err = &kernels.OpError{Op: step.op, Shapes: step.shapes, Err: s.Err}
			return
		}
	}
}

// launch enqueues a kernel on the compute stream, for a result of the given size.
func (s *submission) launch(k kernel, rows, cols int, params ...gpu.Param) {
	if len(params) != k.params {
		s.Fail(fmt.Errorf("%s is given %d parameters and takes %d", k.Name, len(params), k.params))
	}
	x, y := k.tile.grid(rows, cols)
	s.Launch(s.compute, k.Kernel, x, y, params...)
}

// waitForReaders makes the compute stream wait for a pending download of m, before a launch overwrites m.
func (s *submission) waitForReaders(m *memory) {
	if m.busy {
		m.busy = false
		s.Await(s.compute, m.reading)
	}
}

// output enqueues the download of v, which is output i of the program and is stored in the matrix from. Later
// operations of the batch may run during the download.
func (s *submission) output(i int, v kernels.Value, from *matrix) {
	row, most := 4*pitch(from.cols), s.limits.Tokens
	if s.program.PerSequence(v) {
		most = s.limits.Sequences
	}
	if s.results[i].At == nil {
		// The size suffices for the largest batch that the limits allow, so memory is pinned only once.
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

// finish waits for the two events that the method run has recorded, copies the results to dst if nothing has failed,
// and makes the submission idle. It returns the error of run, or an error that the device reports later.
func (s *submission) finish() error {
	device, err := s.backend.device, error(nil)
	if s.recorded {
		err = device.Wait(s.computed, s.copied)
	} else {
		// If the events were not recorded, all work must end before the pinned memory is used again.
		err = device.Do(s.resources.Synchronize)
	}
	if err != nil {
		err = s.failure("wait", err) // a kernel that failed on the device is reported here, without its name
	}
	if err = cmp.Or(s.err, err); err == nil {
		for i, v := range s.program.Outputs() {
			cols := s.program.Cols(v)
			for r := range s.program.Rows(v, s.batch) {
				copy(s.dst[i][r*cols:(r+1)*cols], gpu.View[float32](s.results[i], 4*r*pitch(cols), cols))
			}
		}
		if s.into != nil {
			err = device.Do(s.addTimings)
		}
	}
	s.batch, s.dst, s.into, s.err = kernels.Batch{}, nil, nil, nil
	s.idle = append(s.idle, s)
	return outOfMemory(err)
}
