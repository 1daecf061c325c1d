package cuda

import (
	"cmp"
	"errors"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// runner is a compiled program. One goroutine at a time may use it.
//
// On the device an operation goes to the compute stream. The batch's ids go up, and results come down, on streams of
// their own; events order the three.
type runner struct {
	backend *Backend
	program *kernels.Program
	limits  kernels.Limits
	steps   []step

	profile     *kernels.Profile // or nil
	submissions []*submission    // every one
	idle        []*submission    // those that can be used again

	compute, loads, copies gpu.Stream // loads goes to the device, copies from it
	fence                  gpu.Event  // orders two streams, and may be recorded again at once
	workspace              driver.Pointer
	tables                 *tables
	arena                  arena
	positions              kernel
}

// submission takes one that is idle, or a new one.
func (r *runner) submission() *submission {
	if n := len(r.idle); n > 0 {
		s := r.idle[n-1]
		r.idle = r.idle[:n-1]
		return s
	}
	s := &submission{runner: r, results: make([]gpu.Pinned, len(r.program.Outputs()))}
	s.wait = s.finish
	r.submissions = append(r.submissions, s)
	return s
}

// Start launches the program. An error is wait's to say.
func (r *runner) Start(b kernels.Batch, dst [][]float32) (wait func() error) {
	if err := r.program.CheckRun(r.limits, b, dst); err != nil {
		return func() error { return err }
	}
	s := r.submission()
	s.batch, s.dst, s.into, s.marked = b, dst, r.profile, false
	s.err = r.backend.device.Do(s.run)
	return s.wait
}

// Profile makes p the profile that operations are added to.
func (r *runner) Profile(p *kernels.Profile) bool {
	r.profile = p
	return true
}

// Close waits for running work and frees everything.
func (r *runner) Close() error {
	err := r.backend.do(func(c *gpu.Context) error {
		_ = r.synchronize(c) // an error was or will be reported by a wait
		r.arena.free(c)
		for _, s := range r.submissions {
			s.free(c)
		}
		r.tables.free(c)
		c.FreeEvent(r.fence)
		for _, stream := range []gpu.Stream{r.compute, r.loads, r.copies} {
			c.FreeStream(stream)
		}
		r.arena, r.submissions = arena{}, nil
		r.tables, r.fence, r.compute, r.loads, r.copies = nil, 0, 0, 0, 0
		return nil
	})
	if errors.Is(err, gpu.ErrClosed) {
		return nil // the context went first, and everything with it
	}
	return err
}

// synchronize waits until the device has nothing left to do for the runner.
func (r *runner) synchronize(c *gpu.Context) (err error) {
	for _, stream := range []gpu.Stream{r.compute, r.loads, r.copies} {
		if stream != 0 {
			err = cmp.Or(err, c.Synchronize(stream))
		}
	}
	return err
}
