package pool

import (
	"errors"
	"fmt"
	"math"
	"time"

	"seqembed/kernels"
)

// ErrStalled is wrapped by the error of a device that was given up because of Job.StallTimeout.
var ErrStalled = errors.New("no progress")

// watched is an Embedder that gives up its device if a batch takes too long: a call of a driver may never return, and
// cannot be interrupted. The call then keeps its goroutine until it returns or the process ends. The device counts as
// failed, and is neither used nor closed any more.
type watched struct {
	Embedder
	device Device
	limit  time.Duration // time limit for a batch with at most Budget() tokens
	lost   error         // reason why the device was given up, or nil
}

// ticks is the number of ticks of a ticker that make up a time limit. A ticker drops the ticks that are due while the
// process is suspended, for example by a job scheduler. So such time hardly counts.
const ticks = 16

// open opens a device. With Job.StallTimeout its batches are watched.
func (r *run) open(d Device) (Embedder, error) {
	e, err := d.Open()
	if err != nil || r.StallTimeout == 0 {
		return e, err
	}
	return &watched{Embedder: e, device: d, limit: r.StallTimeout}, nil
}

// Start starts a batch. If Start or finish has to wait longer than limitOf allows, the device is given up, and finish
// returns an ErrStalled.
func (w *watched) Start(b kernels.Batch) (finish func() ([][]float32, error)) {
	type result struct {
		values [][]float32
		err    error
	}
	limit := w.limitOf(len(b.IDs))
	wait, ok := await(w, limit, func() func() ([][]float32, error) { return w.Embedder.Start(b) })
	return func() ([][]float32, error) {
		if ok {
			r, finished := await(w, limit, func() result { values, err := wait(); return result{values, err} })
			if finished {
				return r.values, r.err
			}
		}
		return nil, w.lost
	}
}

// limitOf returns the time limit for a batch of a number of tokens. For a batch over the budget, which is a single
// sequence, the limit grows with the square of the number, as the time of attention does.
func (w *watched) limitOf(tokens int) time.Duration {
	times := max(1, float64(tokens)/float64(w.Budget()))
	return time.Duration(min(float64(w.limit)*times*times, math.MaxInt64/2))
}

// await returns the result of call, or false if the device has been given up or does not return within the limit.
func await[T any](w *watched, limit time.Duration, call func() T) (result T, ok bool) {
	if w.lost != nil {
		return result, false
	}
	done := make(chan T, 1) // has room for a late result, so that the goroutine ends
	go func() { done <- call() }()
	ticker := time.NewTicker(max(1, limit/ticks))
	defer ticker.Stop()
	for range ticks {
		select {
		case result = <-done:
			return result, true
		case <-ticker.C:
		}
	}
	w.lost = fmt.Errorf("%w for %v", ErrStalled, limit.Round(time.Millisecond))
	w.device.Abandon()
	return result, false
}

// Close frees the memory of a device that was not given up.
func (w *watched) Close() error {
	if w.lost != nil {
		return nil
	}
	return w.Embedder.Close()
}
