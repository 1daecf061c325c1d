package cuda

import (
	"errors"
	"runtime"
	"sync"
)

// threadQueue is the work that may wait for a thread: more than the batches that
// are under way at a time.
const threadQueue = 16

// thread is a goroutine that is locked to one thread of the operating system,
// where a device's context is current, and does in order what it is sent. It
// ends with stop.
type thread struct {
	mu      sync.RWMutex // held for writing while the queue is closed
	stopped bool
	queue   chan func() // capacity threadQueue
	ended   chan struct{}
}

// startThread starts the goroutine and returns what enter says there.
func startThread(enter func() error, leave func()) (*thread, error) {
	t := &thread{queue: make(chan func(), threadQueue), ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(t.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := enter()
		started <- err
		if err != nil {
			return
		}
		defer leave()
		for work := range t.queue {
			work()
		}
	}()
	if err := <-started; err != nil {
		<-t.ended
		return nil, err
	}
	return t, nil
}

var errClosed = errors.New("the device has been closed")

// post sends work and does not wait for it. It is false when the thread has
// been stopped.
func (t *thread) post(work func()) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.stopped {
		return false
	}
	t.queue <- work
	return true
}

// call sends work and waits for its result.
func (t *thread) call(work func() error) error {
	done := make(chan error, 1) // so that the thread never waits for the caller
	if !t.post(func() { done <- work() }) {
		return errClosed
	}
	return <-done
}

// stop does what is still queued and ends the goroutine.
func (t *thread) stop() {
	t.mu.Lock()
	if !t.stopped {
		t.stopped = true
		close(t.queue)
	}
	t.mu.Unlock()
	<-t.ended
}
