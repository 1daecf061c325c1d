package pool

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"seqembed/internal/seqio"
	"seqembed/kernels"
)

// worker runs the batches of one device. Only one goroutine uses it.
type worker struct {
	*run
	device   Device
	embedder Embedder
	budget   int // maximum of tokens in a batch of several sequences; reduced if a batch does not fit the memory

	pending  []batch       // batches that are packed but not started
	inFlight []batch       // batches that are started but not finished, in order; at most Device.Ahead+1
	finished time.Time     // time at which the last batch finished; zero before the first
	waited   time.Duration // time for which the device has had no work since the last batch
}

// batch is a set of sequences of one span that are computed together.
type batch struct {
	span    *span
	members []*sequence
	input   kernels.Batch
	started time.Time
	finish  func() ([][]float32, error)
}

// work opens a device, starts a reader for it, and computes until the run ends or the device is lost. The unfinished
// spans of records of a lost device go back to the queue.
func (r *run) work(d Device) {
	began := time.Now()
	r.Observer.DeviceOpening(d.Name)
	e, err := r.open(d)
	switch {
	case errors.Is(err, kernels.ErrUnsupported): // the other devices are of the same kind and would fail as well
		r.stop(fmt.Errorf("%s does not compute this model (%w)", d.Name, err))
		return
	case err != nil:
		r.loseDevice(nil, &DeviceError{d.Name, err})
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
	r.loseDevice(s, &DeviceError{d.Name, fmt.Errorf("%s: %w", s.file.label(), err)})
	for _, s := range unfinished {
		r.enqueue(s)
	}
}

// compute computes spans of records until the run ends or the device fails. After a failure, it returns the span on
// which the device failed, and the error.
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

// next takes a span of records from the queue. If the queue is empty and the device has work, next returns nil at once.
// If the device is idle, next waits for a span. It returns nil when the run has ended.
func (w *worker) next() *span {
	select {
	case s := <-w.spans:
		return s
	default:
	}
	if len(w.inFlight) > 0 {
		return nil
	}
	began := time.Now()
	defer func() { w.waited += time.Since(began) }()
	select {
	case s := <-w.spans:
		return s
	case <-w.ctx.Done():
		return nil
	}
}

// pack divides the sequences of a span that must be computed into batches, and adds the batches to w.pending. A span in
// which no sequence must be computed is complete at once.
func (w *worker) pack(s *span) {
	s.device, s.work = w.device.Name, 0
	var sequences []*sequence
	for _, rec := range s.records {
		for _, window := range rec.windows {
			if seq := window.seq; !window.repeated && !seq.stored {
				seq.result, seq.failure = nil, nil // a lost device may have set them
				sequences = append(sequences, seq)
				s.work += seq.tokens()
			}
		}
	}
	batches := pack(sequences, w.budget)
	s.left = len(batches)
	for _, members := range batches {
		w.pending = append(w.pending, batch{span: s, members: members})
	}
	if s.left == 0 {
		w.Observer.SpanKnown(s.file.Path, s.bytes)
		close(s.done)
	}
}

// mustWait reports whether all batches in flight must finish before the next batch starts. This is the case if the next
// batch is a single sequence over Embedder.Budget, because the embedder must allocate more memory for it.
func (w *worker) mustWait() bool {
	b := w.pending[0]
	return len(w.inFlight) > 0 && len(b.members) == 1 && b.members[0].tokens() > w.embedder.Budget()
}

// start starts the first pending batch. If the budget was halved after the batch was packed, the batch may be over the
// budget; start then divides it into several batches and starts the first of them. It drops a batch whose file has
// failed. After the run has ended, it drops every batch.
func (w *worker) start() {
	b := w.pending[0]
	if b.span.file.ctx.Err() != nil {
		w.pending = w.pending[1:]
		return
	}
	if parts := pack(b.members, w.budget); len(parts) > 1 {
		b.span.left += len(parts) - 1
		w.pending = w.pending[1:]
		for _, members := range slices.Backward(parts) {
			w.pending = slices.Insert(w.pending, 0, batch{span: b.span, members: members})
		}
		b = w.pending[0]
	}
	for _, m := range b.members {
		b.input.Append(m.ids)
	}
	w.announce(b)
	b.started, b.finish = time.Now(), w.embedder.Start(b.input)
	w.pending, w.inFlight = w.pending[1:], append(w.inFlight, b)
}

// finish waits for the first batch in flight. If the device has no memory for a batch of several sequences, finish
// returns the batch to w.pending, and reduces the budget to half the tokens of the batch. If the device has no memory
// for a single sequence, finish calls leaveOut. Any other error is a failure of the device; finish returns it with the
// span of the batch.
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
		if tokens <= w.budget { // otherwise another batch has reduced the budget since this one was started
			w.budget = tokens / 2
			w.Observer.BudgetHalved(w.device.Name, w.budget, err)
		}
		w.pending = slices.Insert(w.pending, 0, batch{span: s, members: b.members})
		return nil, nil
	case errors.Is(err, kernels.ErrOutOfMemory):
		w.leaveOut(s.file, b.members[0], err)
	case err != nil:
		return s, err
	default:
		w.distribute(results, b)
		w.Observer.BatchDone(Batch{Device: w.device.Name, Path: s.file.Path, Sequences: len(b.members), Tokens: tokens, Budget: w.budget,
			Bytes: s.bytes * int64(tokens) / int64(s.work), Took: w.finished.Sub(began), Waited: w.waited})
		w.waited = 0
	}
	if s.left--; s.left == 0 {
		w.complete(s)
	}
	return nil, nil
}

// leaveOut ends the work on a sequence that does not fit the memory of a device. If the user has asked to skip bad
// records, the records of this sequence get no rows. Otherwise the file fails, because the rows of an output must not
// depend on the memory that is free at the moment.
func (w *worker) leaveOut(f *fileJob, s *sequence, err error) {
	if s.failure = err; w.Reading.OnBad != seqio.BadSkip {
		s.failure = fmt.Errorf("%s:%d: record %q: %w: %w", f.label(), s.line, s.first, ErrMemory, err)
		f.cancel(s.failure)
	}
}

// distribute stores in each sequence of a batch its part of the batch's results, column by column. A sequence to which
// later records may refer gets a copy, so that the results of the whole batch do not stay in memory with it.
func (w *worker) distribute(results [][]float32, b batch) {
	for i, m := range b.members {
		for c, column := range w.Output.Columns {
			from, to := i, i+1
			if !column.Pooling.PerRecord() {
				first := int(b.input.CuSeqlens[i])
				from, to = w.Covered(column.Pooling, m.tokens())
				from, to = first+from, first+to
			}
			values := results[c][from*w.Output.Dim : to*w.Output.Dim]
			if m.kept {
				values = slices.Clone(values)
			}
			m.result = append(m.result, values)
		}
	}
}

// complete tells the writer of the span's file that the span is computed. It sets the number of device failures in a
// row to 0.
func (w *worker) complete(s *span) {
	w.mu.Lock()
	w.failures = 0
	w.mu.Unlock()
	close(s.done)
}

// drain waits for all batches in flight of a lost device, and ignores their results. It returns the spans that must be
// computed again: first, the span on which the device failed, and those of all batches in flight and pending.
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
