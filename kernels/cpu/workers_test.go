package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestWorkerPool runs jobs of every small size from several goroutines at once. It checks that each task runs once and
// that no worker has two tasks at a time. Pauses longer than spinTime make the workers block in between.
func TestWorkerPool(t *testing.T) {
	for _, processors := range []int{1, runtime.GOMAXPROCS(0)} {
		before := runtime.GOMAXPROCS(processors)
		for _, size := range []int{1, 2, 5} {
			p := newWorkerPool(size)
			var callers sync.WaitGroup
			for range 3 {
				callers.Go(func() {
					for tasks := range 40 {
						times := make([]atomic.Int32, tasks)
						busy := make([]atomic.Bool, size)
						p.run(tasks, func(worker, task int) {
							if !busy[worker].CompareAndSwap(false, true) {
								t.Errorf("worker %d has two tasks at a time", worker)
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
							time.Sleep(2 * spinTime)
						}
					}
				})
			}
			callers.Wait()
			p.stop()
		}
		runtime.GOMAXPROCS(before)
	}
}

// TestWorkerPoolBlocks checks that workers without a job block, and that they return when the pool is stopped.
func TestWorkerPoolBlocks(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newWorkerPool(4)
	p.run(100, func(int, int) {})
	eventually(t, "three workers are blocked", func() bool {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		return p.blocked == 3
	})
	p.stop()
	eventually(t, "no worker is left", func() bool { return runtime.NumGoroutine() <= before })
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("not true within five seconds: %s", what)
}
