package cpu

import (
	"testing"

	"seqembed/kernels"
)

// TestDone checks Done of a runner, the part of the FLOPs of a batch that has been computed: it is 0 before the first
// batch, and during an operation it counts the earlier operations and the tasks that workers have taken.
func TestDone(t *testing.T) {
	for _, threads := range []int{1, 2} {
		workers := newWorkerPool(threads)
		r := &runner{workers: workers, progress: progress{tasks: workers}}
		var b kernels.Batch
		b.Append([]int32{1, 2, 3, 4})
		var seen []float64
		const tasks = 4
		job := func(_, task int) {
			if task == tasks-1 {
				seen = append(seen, r.Done())
			}
		}
		r.steps = []step{{perToken: 1, run: func() { workers.run(tasks, job) }}, {perPair: 1, run: func() { workers.run(tasks, job) }}}
		if r.Done() != 0 {
			t.Errorf("%d threads: %v before the first batch", threads, r.Done())
		}
		r.begin(b, r.steps) // the steps have 4 and 16 FLOPs
		for _, s := range r.steps {
			r.next(kernels.FLOPs(b, s.perToken, s.perPair))
			s.run()
		}
		// While the last of 4 tasks runs, Done counts 3 tasks with one thread, and all 4 tasks with two.
		taken := map[int]float64{1: 0.75, 2: 1}[threads]
		if len(seen) != 2 || seen[0] != 4*taken/20 || seen[1] != (4+16*taken)/20 {
			t.Errorf("%d threads: %v", threads, seen)
		}
		workers.stop()
	}
}
