package cuda

import (
	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// runner is a compiled program. One goroutine at a time may use it.
//
// Operations run on the compute stream. The batch's ids are uploaded and the results downloaded on separate streams.
// Events order the three streams.
type runner struct {
	backend *Backend
	program *kernels.Program
	limits  kernels.Limits
	steps   []step

	profile *kernels.Profile // nil if no profile is wanted
	idle    []*submission    // submissions that are not in flight, for reuse

	resources              gpu.Resources // owns streams, events and memory of the runner and its submissions
	compute, loads, copies gpu.Stream    // streams for kernels (compute), uploads (loads) and downloads (copies)
	fence                  gpu.Event     // used only in Context.Order, which can use the same event again and again
	workspace              driver.Pointer
	tables                 *tables
	slots                  []*memory
	rotations              map[string]driver.Pointer // tables of cosines and sines, by their frequencies as text
	positions              kernel
}

// submission returns an idle submission, or a new one.
func (r *runner) submission() *submission {
	if n := len(r.idle); n > 0 {
		s := r.idle[n-1]
		r.idle = r.idle[:n-1]
		return s
	}
	s := &submission{runner: r, results: make([]gpu.Pinned, len(r.program.Outputs()))}
	s.wait = s.finish
	return s
}

// Start launches the program on a batch and returns without waiting for the device. The function wait blocks until dst
// holds the results, and returns the error of the run.
func (r *runner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	if err := r.program.CheckRun(r.limits, b, dst); err != nil {
		return func() error { return err }
	}
	s := r.submission()
	s.batch, s.dst, s.into, s.recorded = b, dst, r.profile, false
	s.err = r.backend.device.Do(s.run)
	return s.wait
}

// Profile adds the timings of later batches to p. If p is nil, later batches are not timed.
func (r *runner) Profile(p *kernels.Profile) bool {
	r.profile = p
	return true
}

// Close waits for the streams and frees all memory, streams and events of the runner.
func (r *runner) Close() error {
	r.idle = nil
	return outOfMemory(r.backend.device.Free(&r.resources))
}
