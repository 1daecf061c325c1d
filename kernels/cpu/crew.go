package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// crew is a fixed set of goroutines that share the tasks of one job at a
// time. The goroutine that brings the job works too, as worker 0.
//
// A forward pass is hundreds of jobs of some microseconds each, and waking a
// goroutine takes about as long: who waits looks for a while, letting others
// run, before it sleeps.
type crew struct {
	size    int
	turn    sync.Mutex // held by who brings a job
	current atomic.Pointer[job]

	mutex  sync.Mutex
	asleep int // helpers that wait for posted
	posted *sync.Cond
}

// patience is how long a waiting goroutine looks before it sleeps: longer
// than the pauses inside a forward pass, and nothing beside those between.
const patience = 50 * time.Microsecond

type job struct {
	tasks    int64
	next     atomic.Int64  // the first task that nobody has taken
	done     atomic.Int64  // tasks finished
	finished chan struct{} // closed with the last of them
	do       func(worker, task int)
	quit     bool // the helpers return
}

func newCrew(size int) *crew {
	c := &crew{size: size}
	c.posted = sync.NewCond(&c.mutex)
	for worker := 1; worker < size; worker++ {
		go func() {
			for j := c.following(nil); !j.quit; j = c.following(j) {
				j.work(worker)
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
	j := &job{tasks: int64(tasks), do: do, finished: make(chan struct{})}
	c.post(j)
	j.work(0)
	if !look(func() bool { return j.done.Load() == j.tasks }) {
		<-j.finished
	}
	j.do = nil // the crew keeps the job until the next, but not what it used
}

func (c *crew) post(j *job) {
	c.current.Store(j)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.asleep > 0 {
		c.posted.Broadcast()
	}
}

// following waits for another job than the last one.
func (c *crew) following(last *job) *job {
	if look(func() bool { return c.current.Load() != last }) {
		return c.current.Load()
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.asleep++
	for c.current.Load() == last {
		c.posted.Wait()
	}
	c.asleep--
	return c.current.Load()
}

// look reports whether the condition came true before its patience ended.
func look(condition func() bool) bool {
	for start := time.Now(); !condition(); runtime.Gosched() {
		if time.Since(start) > patience {
			return false
		}
	}
	return true
}

func (j *job) work(worker int) {
	for {
		task := j.next.Add(1) - 1
		if task >= j.tasks {
			return
		}
		j.do(worker, int(task))
		if j.done.Add(1) == j.tasks {
			close(j.finished)
		}
	}
}

func (c *crew) stop() { c.post(&job{quit: true}) }
