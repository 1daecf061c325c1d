package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
	"seqembed/kernels"
)

// ErrTooLong is in the chain of the error of a record over --max-length.
var ErrTooLong = errors.New("record too long")

// errLost would be a bug: a record that was neither written nor skipped.
var errLost = errors.New("records were lost")

const (
	// lookAhead is how many batches of tokens are read before they are sorted
	// by length: enough that batches are of one length, and little memory.
	lookAhead = 4
	// extremeTokens is the length from which a record is announced.
	extremeTokens = 50_000
)

// reasonMemory is why a record that fits no device is left out.
const reasonMemory = "out of memory"

// embed reads, computes and writes one file. One goroutine reads and
// tokenizes, one hands out spans of records to this one, which computes, and
// to idle workers, and one writes the spans in their order. At most as many
// spans as there are devices, and four more, exist at a time for each file. All goroutines
// have ended when embed returns, unless the work broke off while the reader
// waits for a pipe.
func (r *run) embed(ctx context.Context, w *worker, f File) (FileReport, error) {
	report := FileReport{Path: f.Path, Device: w.Name, backend: w.Backend, Skipped: map[string]int64{}, Started: time.Now()}
	reader, err := f.open(r.Reading)
	if err != nil {
		return report, err
	}
	out, err := store.Create(r.Output.spec(f))
	if err != nil {
		reader.Close()
		return report, &outputError{err}
	}
	defer out.Abort()
	r.Observer.FileStarted(f.Path, w.Name)

	// A stage that fails cancels work, so that no other waits for it.
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tokenized := make(chan span, 1)
	own := make(chan *task)                     // spans for this worker
	ordered := make(chan *task, len(r.Devices)) // every span, computed or not
	written := make(chan struct{})
	go func() {
		defer close(tokenized)
		defer reader.Close()
		if err := r.read(work, reader, f, w.embedder.Budget(), tokenized); err != nil {
			cancel(err)
		}
	}()
	go func() {
		defer close(own)
		var handedOut sync.WaitGroup
		defer handedOut.Wait()
		defer close(ordered)
		for {
			s, ok := receive(work, tokenized)
			if !ok {
				return
			}
			handedOut.Add(1)
			t := &task{work: work, cancel: cancel, file: f, backend: w.Backend, own: own, span: s, done: make(chan struct{}), finished: handedOut.Done}
			if !send(work, ordered, t) {
				t.finish()
				return
			}
			t.offer(r)
		}
	}()
	devices := map[string]bool{}
	go func() {
		defer close(written)
		for t := range ordered {
			<-t.done
			if work.Err() != nil {
				continue
			}
			devices[t.device] = true
			if err := r.write(out, f, t.span.records, &report); err != nil {
				cancel(err)
			}
		}
	}()
	for t := range own {
		if err := r.computeTask(w, t); err != nil {
			cancel(err)
		}
		t.finish()
	}
	<-written
	if !f.once() {
		for range tokenized { // until the reader has seen the end of work, too
		}
	}

	if ctx.Err() != nil {
		return report, ErrInterrupted
	}
	if work.Err() != nil {
		return report, context.Cause(work)
	}
	report.Device = strings.Join(slices.Sorted(maps.Keys(devices)), ", ")
	err = r.commit(reader, out, f, &report)
	return report, err
}

// task is a span that waits for a device.
type task struct {
	work     context.Context // of its file
	cancel   context.CancelCauseFunc
	file     File
	backend  string     // the device has to have
	own      chan *task // to the worker that has the file
	span     span
	device   string        // that computed it
	lost     int           // helpers that broke on it
	done     chan struct{} // closed when it has been computed or given up
	finished func()
}

// offer gives the task to the worker that has its file or to an idle one,
// whoever is first, unless its work has ended.
func (t *task) offer(r *run) {
	select {
	case t.own <- t:
	case r.help[t.backend] <- t:
	case <-t.work.Done():
		t.finish()
	}
}

func (t *task) finish() {
	close(t.done)
	t.finished()
}

func (r *run) computeTask(w *worker, t *task) error {
	t.device = w.Name
	err := r.compute(t.work, w, t.file, t.span)
	if err == nil && t.work.Err() == nil {
		r.mu.Lock()
		r.failures = 0
		r.mu.Unlock()
	}
	return err
}

// span is a stretch of the file: what is packed into batches together.
type span struct {
	records []*record
	tokens  int
	bytes   int64 // of the file as it is on disk
}

// send hands something to the next stage unless work has ended.
func send[T any](work context.Context, to chan<- T, what T) bool {
	select {
	case to <- what:
		return true
	case <-work.Done():
		return false
	}
}

// receive takes a span from the stage before, unless that or work has ended.
func receive(work context.Context, from <-chan span) (span, bool) {
	select {
	case s, ok := <-from:
		return s, ok
	case <-work.Done():
		return span{}, false
	}
}

// read tokenizes the file's records, a span of lookAhead batches of that
// budget at a time.
func (r *run) read(work context.Context, reader *seqio.Reader, f File, budget int, to chan<- span) error {
	capacity := lookAhead * budget
	if r.PerToken {
		capacity = budget // whole hidden states wait to be written
	}
	var s span
	var position int64
	next := func() bool {
		s.bytes, position = reader.Position()-position, reader.Position()
		ok := send(work, to, s)
		s = span{}
		return ok
	}
	for {
		rec, err := reader.Read()
		if errors.Is(err, io.EOF) {
			next()
			return nil
		}
		if err != nil {
			return err
		}
		tokenized, err := r.newRecord(f.label(), rec)
		if err != nil {
			return err
		}
		if n := tokenized.windows[0].tokens(); n > extremeTokens {
			r.Observer.LongRecord(f.Path, rec.ID, n)
		}
		if s.tokens > 0 && s.tokens+tokenized.row.Tokens > capacity && !next() {
			return nil
		}
		s.records, s.tokens = append(s.records, tokenized), s.tokens+tokenized.row.Tokens
	}
}

// flight is a batch that has been started.
type flight struct {
	members []*window
	batch   kernels.Batch
	finish  func() ([][]float32, error)
}

func (w *worker) start(members []*window) flight {
	f := flight{members: members}
	for _, m := range members {
		f.batch.Append(m.ids)
	}
	f.finish = w.embedder.Start(f.batch)
	return f
}

// compute embeds the windows of a span's records, batch by batch. A batch that
// the device has no memory for halves the worker's budget, down to single
// windows; a window that does not fit alone is that record's failure.
func (r *run) compute(work context.Context, w *worker, f File, s span) error {
	var windows []*window
	for _, rec := range s.records {
		rec.failure = nil // what a device left that was lost
		for _, m := range rec.windows {
			m.result = nil
			windows = append(windows, m)
		}
	}
	var flights []flight // in the order of their start
	defer func() {
		for _, one := range flights { // after an error or an interruption
			_, _ = one.finish()
		}
	}()
	began := time.Now()
	for queue := pack(windows, w.budget); len(queue)+len(flights) > 0; {
		if work.Err() != nil {
			return nil
		}
		for len(queue) > 0 && len(flights) <= w.Ahead {
			flights, queue = append(flights, w.start(queue[0])), queue[1:]
		}
		one := flights[0]
		flights = flights[1:]
		results, err := one.finish()
		took := time.Since(began)
		began = began.Add(took)
		switch {
		case errors.Is(err, kernels.ErrOutOfMemory) && len(one.members) > 1:
			if n := len(one.batch.IDs); n <= w.budget { // and not started before the last halving
				w.budget = n / 2
				r.Observer.BudgetHalved(w.Name, w.budget, err)
			}
			queue = pack(slices.Concat(append(queue, one.members)...), w.budget)
		case errors.Is(err, kernels.ErrOutOfMemory):
			one.members[0].rec.failure = err
		case err != nil:
			return &DeviceError{w.Name, err}
		default:
			r.distribute(results, one.batch, one.members)
			r.Observer.BatchDone(Batch{Device: w.Name, Path: f.Path, Sequences: len(one.members), Tokens: len(one.batch.IDs),
				Bytes: s.bytes * int64(len(one.batch.IDs)) / int64(s.tokens), Took: took})
		}
	}
	for _, rec := range s.records {
		if rec.failure == nil {
			rec.join(r.PerToken, w.embedder.Averaged)
		}
		rec.windows = nil
	}
	return nil
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

// write stores the records, which come in the order of the input, and counts
// them.
func (r *run) write(out store.Writer, f File, records []*record, report *FileReport) error {
	for _, rec := range records {
		if rec.failure != nil {
			report.Skipped[reasonMemory]++
			r.Observer.RecordSkipped(f.Path, rec.row.ID, rec.line, rec.failure)
			continue
		}
		err := out.Write(rec.row)
		switch {
		case errors.Is(err, store.ErrRecord):
			return fmt.Errorf("%s:%d: %w", f.label(), rec.line, err)
		case err != nil:
			return &outputError{err}
		}
		report.count(rec)
	}
	return nil
}

// commit checks that nothing was lost, puts the output under its name and
// describes it in the manifest.
func (r *run) commit(reader *seqio.Reader, out store.Writer, f File, report *FileReport) error {
	skipped := report.Skipped[reasonMemory]
	for reason, n := range reader.SkipCounts() {
		report.Skipped[reason] += n
		skipped += n
	}
	report.Examples = reader.Skipped()
	if reader.Records() != report.Records+skipped {
		return fmt.Errorf("%s: %d records in, %d rows out, %d skipped: %w", f.label(), reader.Records(), report.Records, skipped, errLost)
	}
	sum, size, err := reader.Digest()
	if err != nil {
		return err
	}
	entry := r.Output.Template
	entry.Input = store.Source{Path: f.Path, Size: size, SHA256: sum}
	entry.Device, entry.Backend = report.Device, report.backend
	entry.Records, entry.Tokens, entry.Truncated = report.Records, report.Tokens, report.Truncated
	entry.Skipped, entry.Started = report.Skipped, report.Started
	// The manifest says what the output is going to be before it is there: a
	// run that is killed in between leaves nothing that the next would refuse.
	if err := r.describe(entry); err != nil {
		return err
	}
	if report.Outputs, err = out.Commit(); err != nil {
		return &outputError{err}
	}
	report.Finished = time.Now()
	entry.Outputs, entry.Finished = report.Outputs, report.Finished
	return r.describe(entry)
}

// describe puts an entry into the manifest on disk, beside what other runs
// into the same folder have put there.
func (r *run) describe(entry store.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := store.UpdateManifest(r.Output.Dir, entry); err != nil {
		return &outputError{err}
	}
	return nil
}
