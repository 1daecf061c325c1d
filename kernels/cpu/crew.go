package cpu

import (
	"sync"
	"sync/atomic"
)

// crew is a fixed set of goroutines that share the tasks of one job at a
// time. The goroutine that brings the job works too, as worker 0.
type crew struct {
	size int
	jobs chan *job // one copy of the job for each helper, so capacity size-1
	turn sync.Mutex
}

type job struct {
	tasks int64
	next  atomic.Int64
	do    func(worker, task int)
	left  sync.WaitGroup
}

func newCrew(size int) *crew {
	c := &crew{size: size, jobs: make(chan *job, size-1)}
	for worker := 1; worker < size; worker++ {
		go func() {
			for j := range c.jobs {
				j.work(worker)
				j.left.Done()
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
	j := &job{tasks: int64(tasks), do: do}
	helpers := min(c.size, tasks) - 1
	j.left.Add(max(0, helpers))
	for range helpers {
		c.jobs <- j
	}
	j.work(0)
	j.left.Wait()
}

func (j *job) work(worker int) {
	for {
		task := j.next.Add(1) - 1
		if task >= j.tasks {
			return
		}
		j.do(worker, int(task))
	}
}

func (c *crew) stop() { close(c.jobs) }
