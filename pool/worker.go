package pool

import (
	"context"
	"errors"
	"slices"
	"time"

	"seqembed/kernels"
)

// task is a span that is to be computed, on its way from reader to writer.
type task struct {
	work   context.Context // of its file
	cancel context.CancelCauseFunc
	file   File
	span   span
	lost   int           // devices that broke on it, guarded by the run
	device string        // that computed it
	done   chan struct{} // closed when it has been computed

	left int // batches that have not come back, when a worker has it
}

// computed waits until the task has been computed or its file has been given
// up, and reports which.
func (t *task) computed() bool {
	select {
	case <-t.done:
		return true
	default:
	}
	select {
	case <-t.done:
		return true
	case <-t.work.Done():
		return false
	}
}

// worker is one device at work. It belongs to one goroutine.
type worker struct {
	Device
	run      *run
	group    *group
	stop     context.CancelCauseFunc
	embedder Embedder
	budget   int // tokens of a batch: the embedder's, halved whenever memory ran out

	again   []*task  // to be computed before others
	waiting []flight // not started
	flying  []flight // started, in their order
	landed  time.Time
}

// flight is a batch of a task's windows.
type flight struct {
	task    *task
	members []*window
	batch   kernels.Batch
	started time.Time
	finish  func() ([][]float32, error)
}

// serve computes tasks until there is nothing more to come or the device is
// lost. The error is that of the last device.
func (w *worker) serve() error {
	for {
		for len(w.flying) <= w.Ahead {
			if len(w.waiting) == 0 {
				t := w.next()
				if t == nil {
					break
				}
				w.begin(t)
				continue
			}
			if w.waits() {
				break
			}
			w.launch()
		}
		if len(w.flying) == 0 {
			return nil
		}
		t, err := w.land()
		if err == nil {
			continue
		}
		tasks := w.drain(t)
		goOn, lost := w.run.broke(w.stop, w.group, t, &DeviceError{w.Name, err})
		if goOn {
			w.again = append(tasks, w.again...)
			continue
		}
		for _, t := range append(tasks, w.again...) {
			select {
			case w.group.tasks <- t:
			case <-t.work.Done():
			}
		}
		return lost
	}
}

// next takes a task whose file has not been given up. It waits for one only
// when the device has nothing to do, and gives nil when there is none.
func (w *worker) next() *task {
	for {
		var t *task
		if len(w.again) > 0 {
			t, w.again = w.again[0], w.again[1:]
		} else {
			select {
			case t = <-w.group.tasks:
			default:
				if len(w.flying) > 0 {
					return nil
				}
				select {
				case t = <-w.group.tasks:
				case <-w.run.done:
					return nil
				case <-w.group.ctx.Done():
					return nil
				}
			}
		}
		if t.work.Err() == nil {
			return t
		}
	}
}

// begin packs a task into batches. One without records is done at once.
func (w *worker) begin(t *task) {
	t.device = w.Name
	var windows []*window
	for _, rec := range t.span.records {
		rec.failure = nil // what a device left that was lost
		for _, m := range rec.windows {
			m.result = nil
			windows = append(windows, m)
		}
	}
	batches := pack(windows, w.budget)
	t.left = len(batches)
	for _, members := range batches {
		w.waiting = append(w.waiting, flight{task: t, members: members})
	}
	if t.left == 0 {
		w.complete(t)
	}
}

// waits reports whether the batch that comes next has to wait for all before
// it: a window over the budget makes the embedder grow.
func (w *worker) waits() bool {
	one := w.waiting[0]
	return len(w.flying) > 0 && len(one.members) == 1 && one.members[0].tokens() > w.embedder.Budget()
}

// launch starts the first batch that waits, or what is left of it after the
// budget was halved.
func (w *worker) launch() {
	one := w.waiting[0]
	if one.task.work.Err() != nil {
		w.waiting = w.waiting[1:]
		return
	}
	if parts := pack(one.members, w.budget); len(parts) > 1 {
		one.task.left += len(parts) - 1
		smaller := make([]flight, len(parts))
		for i, members := range parts {
			smaller[i] = flight{task: one.task, members: members}
		}
		w.waiting = slices.Concat(smaller, w.waiting[1:])
		one = smaller[0]
	}
	for _, m := range one.members {
		one.batch.Append(m.ids)
	}
	one.started, one.finish = time.Now(), w.embedder.Start(one.batch)
	w.waiting, w.flying = w.waiting[1:], append(w.flying, one)
}

// land waits for the first batch that was started. One that the device has no
// memory for halves the worker's budget, down to single windows; a window
// that does not fit alone is that record's failure. Any other error is the
// device's.
func (w *worker) land() (*task, error) {
	one := w.flying[0]
	w.flying = w.flying[1:]
	results, err := one.finish()
	began := one.started
	if began.Before(w.landed) {
		began = w.landed
	}
	w.landed = time.Now()
	t, r := one.task, w.run
	switch {
	case errors.Is(err, kernels.ErrOutOfMemory) && len(one.members) > 1:
		if n := len(one.batch.IDs); n <= w.budget { // and not started before the last halving
			w.budget = n / 2
			r.Observer.BudgetHalved(w.Name, w.budget, err)
		}
		w.waiting = slices.Insert(w.waiting, 0, flight{task: t, members: one.members})
		return t, nil
	case errors.Is(err, kernels.ErrOutOfMemory):
		one.members[0].rec.failure = err
	case err != nil:
		return t, err
	default:
		r.distribute(results, one.batch, one.members)
		r.Observer.BatchDone(Batch{Device: w.Name, Path: t.file.Path, Sequences: len(one.members), Tokens: len(one.batch.IDs),
			Bytes: t.span.bytes * int64(len(one.batch.IDs)) / int64(t.span.tokens), Took: w.landed.Sub(began)})
	}
	if t.left--; t.left == 0 {
		w.complete(t)
	}
	return t, nil
}

// complete joins the windows of each record and hands the task to its writer.
func (w *worker) complete(t *task) {
	for _, rec := range t.span.records {
		if rec.failure == nil {
			rec.join(w.run.PerToken, w.embedder.Averaged)
		}
		rec.windows = nil
	}
	if t.work.Err() == nil {
		w.run.mu.Lock()
		w.run.failures = 0
		w.run.mu.Unlock()
	}
	close(t.done)
}

// drain waits for every batch under way and returns the tasks that have to be
// computed again, the given one first.
func (w *worker) drain(first *task) []*task {
	tasks := []*task{first}
	for _, one := range w.flying {
		_, _ = one.finish()
	}
	for _, one := range append(w.flying, w.waiting...) {
		if !slices.Contains(tasks, one.task) {
			tasks = append(tasks, one.task)
		}
	}
	w.flying, w.waiting = nil, nil
	return tasks
}

// distribute gives each member of a batch its part of every layer's results.
func (r *run) distribute(results [][]float32, batch kernels.Batch, members []*window) {
	for i, m := range members {
		from, to := i, i+1
		if r.PerToken {
			from, to = int(batch.CuSeqlens[i]), int(batch.CuSeqlens[i+1])
		}
		for _, layer := range results {
			m.result = append(m.result, layer[from*r.Output.Dim:to*r.Output.Dim])
		}
	}
}
