package cpu

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// crew is a fixed set of goroutines that share the tasks of one job at a time. The goroutine that brings the job works
// too, as worker 0. A job allocates nothing.
//
// A forward pass is hundreds of jobs of some microseconds each, and waking a goroutine takes about as long: a waiter
// spins for a while, letting others run, before it sleeps.
type crew struct {
	size int
	turn sync.Mutex // held while a job runs

	do    func(worker, task int)
	state atomic.Uint64 // the tasks of the job, shifted by takenBits, and how many of them have been taken; or quit
	left  atomic.Int64  // tasks that are not finished

	mutex            sync.Mutex
	asleep           int // helpers that wait for posted
	posted, finished *sync.Cond
}

const (
	takenBits = 32
	quit      = math.MaxUint64 // the helpers return
)

// patience is how long a waiting goroutine looks before it sleeps: longer
// than the pauses inside a forward pass, and nothing beside those between.
const patience = 50 * time.Microsecond

func newCrew(size int) *crew {
	c := &crew{size: size}
	c.posted, c.finished = sync.NewCond(&c.mutex), sync.NewCond(&c.mutex)
	for worker := 1; worker < size; worker++ {
		go func() {
			for c.wait() {
				c.work(worker)
			}
		}()
	}
	return c
}

// run calls do once for each task in [0, tasks) and returns when all are
// done. Calls with the same worker number never overlap.
func (c *crew) run(tasks int, do func(worker, task int)) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.size == 1 || tasks < 2 {
		for task := range tasks {
			do(0, task)
		}
		return
	}
	c.do = do
	c.left.Store(int64(tasks))
	c.post(uint64(tasks) << takenBits)
	c.work(0)
	done := func() bool { return c.left.Load() == 0 }
	if !look(done) {
		c.mutex.Lock()
		for !done() {
			c.finished.Wait()
		}
		c.mutex.Unlock()
	}
	c.do = nil // the crew keeps nothing of a job that is over
}

func (c *crew) post(state uint64) {
	c.state.Store(state)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.asleep > 0 {
		c.posted.Broadcast()
	}
}

// wait returns when there may be a task to take, or false when the crew has been stopped.
func (c *crew) wait() bool {
	ready := func() bool {
		s := c.state.Load()
		return s == quit || hasTask(s)
	}
	if !look(ready) {
		c.mutex.Lock()
		c.asleep++
		for !ready() {
			c.posted.Wait()
		}
		c.asleep--
		c.mutex.Unlock()
	}
	return c.state.Load() != quit
}

func hasTask(state uint64) bool { return state>>takenBits > state&(1<<takenBits-1) }

// look reports whether the condition came true before its patience ended.
func look(condition func() bool) bool {
	for start := time.Now(); !condition(); runtime.Gosched() {
		if time.Since(start) > patience {
			return false
		}
	}
	return true
}

// work takes tasks until there are none. A job is not over before every task that was taken is finished, so that do is
// that of the task; a worker that is late takes a task of the job that runs then, or none.
func (c *crew) work(worker int) {
	for s := c.state.Load(); hasTask(s); s = c.state.Load() {
		if !c.state.CompareAndSwap(s, s+1) {
			continue
		}
		c.do(worker, int(s&(1<<takenBits-1)))
		if c.left.Add(-1) == 0 {
			c.mutex.Lock()
			c.finished.Broadcast()
			c.mutex.Unlock()
		}
	}
}

// stop ends the helpers.
func (c *crew) stop() { c.post(quit) }
