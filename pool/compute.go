package pool

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"seqembed/kernels"
)

// worker is one device at work. It belongs to one goroutine.
type worker struct {
	*run
	device   Device
	embedder Embedder
	budget   int // tokens of a batch: the embedder's, halved whenever memory ran out

	pending  []batch   // packed and not started
	inFlight []batch   // started, in their order: at most Device.Ahead and one
	finished time.Time // when the last one was
}

// batch is windows of one span that are computed together.
type batch struct {
	span    *span
	members []*window
	input   kernels.Batch
	started time.Time
	finish  func() ([][]float32, error)
}

// work is the life of one device: it is opened, gets a reader, and computes until the run ends or it is lost. What it
// had then goes back to the queue, in whole spans.
func (r *run) work(d Device) {
	began := time.Now()
	r.Observer.DeviceOpening(d.Name)
	e, err := d.Open()
	if err != nil {
		r.lose(nil, &DeviceError{d.Name, err})
		return
	}
	defer e.Close()
	r.Observer.DeviceReady(d.Name, time.Since(began))
	r.io.Go(func() { r.read(d.Name, e.Budget()) })
	w := &worker{run: r, device: d, embedder: e, budget: e.Budget()}
	s, err := w.compute()
	if err == nil {
		return
	}
	unfinished := w.drain(s)
	r.lose(s, &DeviceError{d.Name, fmt.Errorf("%s: %w", s.file.label(), err)})
	for _, s := range unfinished {
		r.enqueue(s)
	}
}

// compute computes spans until the run ends or the device fails on the one that it returns.
func (w *worker) compute() (*span, error) {
	for {
		for len(w.inFlight) <= w.device.Ahead {
			if len(w.pending) == 0 {
				s := w.next()
				if s == nil {
					break
				}
				w.pack(s)
				continue
			}
			if w.mustWait() {
				break
			}
			w.start()
		}
		if len(w.inFlight) == 0 {
			return nil, nil
		}
		if s, err := w.finish(); err != nil {
			return s, err
		}
	}
}

// next takes a span. It waits for one only when the device has nothing to do, and returns nil when there is none or the
// run has ended.
func (w *worker) next() *span {
	select {
	case s := <-w.spans:
		return s
	default:
	}
	if len(w.inFlight) > 0 {
		return nil
	}
	select {
	case s := <-w.spans:
		return s
	case <-w.ctx.Done():
		return nil
	}
}

// pack makes batches of a span. One without records is done at once.
func (w *worker) pack(s *span) {
	s.device = w.device.Name
	var windows []*window
	for _, rec := range s.records {
		rec.failure = nil // left by a device that was lost
		for _, m := range rec.windows {
			m.result = nil
			windows = append(windows, m)
		}
	}
	batches := pack(windows, w.budget)
	s.left = len(batches)
	for _, members := range batches {
		w.pending = append(w.pending, batch{span: s, members: members})
	}
	if s.left == 0 {
		w.complete(s)
	}
}

// mustWait reports whether every batch in flight has to be finished before the next one starts: a window over the
// budget makes the embedder grow.
func (w *worker) mustWait() bool {
	b := w.pending[0]
	return len(w.inFlight) > 0 && len(b.members) == 1 && b.members[0].tokens() > w.embedder.Budget()
}

// start starts the first pending batch, or a part of it where the budget has been halved since it was packed. It drops
// one of a file that has failed, and every one when the run has ended.
func (w *worker) start() {
	b := w.pending[0]
	if b.span.file.ctx.Err() != nil {
		w.pending = w.pending[1:]
		return
	}
	if parts := pack(b.members, w.budget); len(parts) > 1 {
		b.span.left += len(parts) - 1
		smaller := make([]batch, len(parts))
		for i, members := range parts {
			smaller[i] = batch{span: b.span, members: members}
		}
		w.pending = slices.Concat(smaller, w.pending[1:])
		b = smaller[0]
	}
	for _, m := range b.members {
		b.input.Append(m.ids)
	}
	b.started, b.finish = time.Now(), w.embedder.Start(b.input)
	w.pending, w.inFlight = w.pending[1:], append(w.inFlight, b)
}

// finish waits for the first batch in flight. One for which the device has no memory halves the worker's budget, down
// to single windows; a window that does not fit alone is that record's failure. Any other error is the device's, and is
// returned with the span.
func (w *worker) finish() (*span, error) {
	b := w.inFlight[0]
	w.inFlight = w.inFlight[1:]
	results, err := b.finish()
	began := b.started
	if began.Before(w.finished) {
		began = w.finished
	}
	w.finished = time.Now()
	s, tokens := b.span, len(b.input.IDs)
	switch {
	case errors.Is(err, kernels.ErrOutOfMemory) && len(b.members) > 1:
		if tokens <= w.budget { // and not started before the last halving
			w.budget = tokens / 2
			w.Observer.BudgetHalved(w.device.Name, w.budget, err)
		}
		w.pending = slices.Insert(w.pending, 0, batch{span: s, members: b.members})
		return nil, nil
	case errors.Is(err, kernels.ErrOutOfMemory):
		b.members[0].rec.failure = err
	case err != nil:
		return s, err
	default:
		w.distribute(results, b)
		w.Observer.BatchDone(Batch{Device: w.device.Name, Path: s.file.Path, Sequences: len(b.members), Tokens: tokens,
			Bytes: s.bytes * int64(tokens) / int64(s.tokens), Took: w.finished.Sub(began)})
	}
	if s.left--; s.left == 0 {
		w.complete(s)
	}
	return nil, nil
}

// distribute gives each member of a batch its part of every layer's results.
func (w *worker) distribute(results [][]float32, b batch) {
	for i, m := range b.members {
		from, to := i, i+1
		if w.PerToken {
			from, to = int(b.input.CuSeqlens[i]), int(b.input.CuSeqlens[i+1])
		}
		for _, layer := range results {
			m.result = append(m.result, layer[from*w.Output.Dim:to*w.Output.Dim])
		}
	}
}

// complete joins the windows of each record and hands the span to its writer.
func (w *worker) complete(s *span) {
	for _, rec := range s.records {
		if rec.failure == nil {
			rec.join(w.PerToken, w.embedder.Averaged)
		}
		rec.windows = nil
	}
	w.mu.Lock()
	w.failures = 0
	w.mu.Unlock()
	close(s.done)
}

// drain waits for every batch in flight and returns the spans that have to be computed again, the given one first.
func (w *worker) drain(first *span) []*span {
	spans := []*span{first}
	for _, b := range w.inFlight {
		_, _ = b.finish()
	}
	for _, b := range slices.Concat(w.inFlight, w.pending) {
		if !slices.Contains(spans, b.span) {
			spans = append(spans, b.span)
		}
	}
	return spans
}
