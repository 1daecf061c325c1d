package cpu

import (
	"sync/atomic"

	"seqembed/kernels"
)

// progress counts the arithmetic of a batch in FLOPs. Any goroutine may read it while another one computes.
type progress struct {
	tasks                *workerPool   // runs the tasks of the operations
	total, done, current atomic.Uint64 // FLOPs of the batch, of the ended operations, and of the current operation
}

// begin starts the count for a batch: it computes the total, and sets the FLOPs that have been computed to 0.
func (p *progress) begin(b kernels.Batch, steps []step) {
	total := 0.0
	for i := range steps {
		total += kernels.FLOPs(b, steps[i].perToken, steps[i].perPair)
	}
	p.done.Store(0)
	p.current.Store(0)
	p.total.Store(uint64(total))
}

// next counts the current operation as done and begins the next one, which has the given number of FLOPs.
func (p *progress) next(flops float64) {
	p.done.Add(p.current.Load())
	p.current.Store(uint64(flops))
}

// Done returns the part of the current batch's arithmetic that has been computed, from 0 to 1. It is an estimate:
// within an operation, the tasks that have been taken count as computed. Any goroutine may call Done.
func (p *progress) Done() float64 {
	total := float64(p.total.Load())
	if total == 0 {
		return 0
	}
	done := float64(p.done.Load()) + float64(p.current.Load())*p.tasks.fraction()
	return min(1, done/total)
}

// fraction returns the part of the tasks of a job that workers have taken. The job is the current one or, if there is
// none, the last one. If there are several workers, jobs of a single task are ignored.
func (p *workerPool) fraction() float64 {
	state := p.state.Load()
	if tasks := state >> takenBits; tasks > 0 && state != quit {
		return float64(state&(1<<takenBits-1)) / float64(tasks)
	}
	return 0
}
