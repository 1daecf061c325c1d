package cpu

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// workerPool is a fixed set of goroutines that run the tasks of one job at a time. The goroutine that calls run is
// worker 0. A job allocates nothing.
//
// A forward pass consists of hundreds of jobs. Many take only microseconds, and waking a goroutine takes about as long.
// Therefore a waiting goroutine spins, yielding to the scheduler, before it blocks.
type workerPool struct {
	size int
	job  sync.Mutex // held while a job runs

	do      func(worker, task int)
	state   atomic.Uint64 // number of tasks in the job, shifted by takenBits, plus number of tasks taken; or quit
	pending atomic.Int64  // number of unfinished tasks

	mutex            sync.Mutex
	blocked          int // number of workers that wait for the condition posted
	posted, finished *sync.Cond
}

const (
	takenBits = 32
	quit      = math.MaxUint64 // tells the workers to return
)

// spinTime is how long a waiting goroutine spins before it blocks. It is longer than the pauses between the jobs of a
// forward pass, and short compared to the pauses between passes.
const spinTime = 50 * time.Microsecond

func newWorkerPool(size int) *workerPool {
	p := &workerPool{size: size}
	p.posted, p.finished = sync.NewCond(&p.mutex), sync.NewCond(&p.mutex)
	for worker := 1; worker < size; worker++ {
		go func() {
			for p.wait() {
				p.work(worker)
			}
		}()
	}
	return p
}

// run calls do once for each task in [0, tasks) and returns when all calls have returned. Calls with the same worker
// number never overlap.
func (p *workerPool) run(tasks int, do func(worker, task int)) {
	p.job.Lock()
	defer p.job.Unlock()
	switch {
	case p.size == 1:
		for task := range tasks {
			// With one worker, only fraction, which reports progress, reads the state.
			p.state.Store(uint64(tasks)<<takenBits | uint64(task))
			do(0, task)
		}
		return
	case tasks < 2:
		for task := range tasks {
			do(0, task)
		}
		return
	}
	p.do = do
	p.pending.Store(int64(tasks))
	p.post(uint64(tasks) << takenBits)
	p.work(0)
	done := func() bool { return p.pending.Load() == 0 }
	if !spin(done) {
		p.mutex.Lock()
		for !done() {
			p.finished.Wait()
		}
		p.mutex.Unlock()
	}
	p.do = nil // lets the garbage collector free the closure
}

func (p *workerPool) post(state uint64) {
	p.state.Store(state)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.blocked > 0 {
		p.posted.Broadcast()
	}
}

// wait returns true when there may be a task to take, and false when the pool has been stopped.
func (p *workerPool) wait() bool {
	ready := func() bool {
		s := p.state.Load()
		return s == quit || hasTask(s)
	}
	if !spin(ready) {
		p.mutex.Lock()
		p.blocked++
		for !ready() {
			p.posted.Wait()
		}
		p.blocked--
		p.mutex.Unlock()
	}
	return p.state.Load() != quit
}

func hasTask(state uint64) bool { return state>>takenBits > state&(1<<takenBits-1) }

// spin waits for condition for up to spinTime and reports whether the condition became true.
func spin(condition func() bool) bool {
	for start := time.Now(); !condition(); runtime.Gosched() {
		if time.Since(start) > spinTime {
			return false
		}
	}
	return true
}

// work takes tasks and runs them until none is left. A job ends only after all its taken tasks have finished, so the
// function do always belongs to the same job as the task. A worker that wakes late takes a task of the next job, or
// none.
func (p *workerPool) work(worker int) {
	for s := p.state.Load(); hasTask(s); s = p.state.Load() {
		if !p.state.CompareAndSwap(s, s+1) {
			continue
		}
		p.do(worker, int(s&(1<<takenBits-1)))
		if p.pending.Add(-1) == 0 {
			p.mutex.Lock()
			p.finished.Broadcast()
			p.mutex.Unlock()
		}
	}
}

// stop makes the workers return.
func (p *workerPool) stop() { p.post(quit) }
