package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestCrew runs jobs of every small size from several goroutines at once:
// each task once, and no worker number twice at a time. Pauses longer than the
// helpers' patience put them to sleep in between.
func TestCrew(t *testing.T) {
	for _, processors := range []int{1, runtime.GOMAXPROCS(0)} {
		before := runtime.GOMAXPROCS(processors)
		for _, size := range []int{1, 2, 5} {
			c := newCrew(size)
			var bringers sync.WaitGroup
			for range 3 {
				bringers.Go(func() {
					for tasks := range 40 {
						times := make([]atomic.Int32, tasks)
						busy := make([]atomic.Bool, size)
						c.run(tasks, func(worker, task int) {
							if !busy[worker].CompareAndSwap(false, true) {
								t.Errorf("worker %d has two tasks", worker)
							}
							times[task].Add(1)
							busy[worker].Store(false)
						})
						for task := range times {
							if n := times[task].Load(); n != 1 {
								t.Errorf("task %d of %d ran %d times", task, tasks, n)
							}
						}
						if tasks%16 == 0 {
							time.Sleep(2 * patience)
						}
					}
				})
			}
			bringers.Wait()
			c.stop()
		}
		runtime.GOMAXPROCS(before)
	}
}

// TestCrewRests: helpers without a job go to sleep, and return when the crew
// is stopped.
func TestCrewRests(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCrew(4)
	c.run(100, func(int, int) {})
	eventually(t, "three helpers sleep", func() bool {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		return c.asleep == 3
	})
	c.stop()
	eventually(t, "no helper is left", func() bool { return runtime.NumGoroutine() <= before })
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("after five seconds it is still not so that %s", what)
}
