package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// lookAhead is the maximum size, in full batches, of a span of several records. It is large enough that a batch has
// sequences of similar lengths, and small enough that a span needs little memory.
const lookAhead = 4

// span is a list of consecutive records of a file. Their sequences are sorted by length and packed into batches.
type span struct {
	file     *fileJob
	records  []*record
	tokens   int           // number of tokens of all records
	work     int           // number of tokens that must be computed; used by the worker
	bytes    int64         // size in the input file, as stored on disk
	failures int           // number of devices that failed while they computed this span; guarded by run.mu
	device   string        // name of the device that computes the span
	left     int           // number of unfinished batches of the span; used by the worker
	done     chan struct{} // closed when the span has been computed
}

// fileJob is a file that is being processed. Its reader is the goroutine that runs fileJob.read, and its writer the
// goroutine that runs fileJob.write.
type fileJob struct {
	*run
	File
	ctx    context.Context // ends when the run ends, the file fails or the writer ends; cancel sets the cause
	cancel context.CancelCauseFunc
	source store.Source // path, size and modification time of the input before it was read
	reader *seqio.Reader
	out    store.Writer
	parts  *parts

	latest   latest     // sequences that may be repeated in the rest of the file; owned by the reader
	ordered  chan *span // all spans for the writer, computed or not; has the capacity of openSpans
	next     *record    // first record of the next span; it did not fit in the previous span
	checked  chan error // receives the result of the goroutine of checkBeside; nil without such a goroutine
	position int64      // offset in the stored file, perhaps compressed, of the end of the last span
	tokens   int64      // number of tokens of all spans that have been read; owned by the reader
	complete bool       // all spans have been queued; owned by the reader until ordered is closed
	report   FileReport // owned by the writer
}

// read is the reader of a device. It reads one file after the other until none is left or the run ends.
func (r *run) read(device string, budget int) {
	for file := range r.files {
		select {
		case r.openFiles <- struct{}{}:
		case <-r.ctx.Done():
		}
		if r.ctx.Err() != nil {
			return
		}
		f, err := r.openFile(file, device)
		if err != nil {
			r.unread.Add(-file.Size)
			r.endFile(file, FileReport{}, err)
			<-r.openFiles
			continue
		}
		r.io.Go(func() {
			err := f.write()
			r.endFile(file, f.report, err)
			<-r.openFiles
		})
		f.read(budget)
	}
}

// openFile opens an input file, its output, and the log in which runs keep the results of the file for a rerun (see
// parts).
func (r *run) openFile(file File, device string) (*fileJob, error) {
	f := &fileJob{run: r, File: file, ordered: make(chan *span, cap(r.openSpans)), latest: latest{limit: r.KeptBytes},
		report: FileReport{Path: file.Path, Skipped: map[string]int64{}, Started: time.Now()}}
	var err error
	if f.source.Path = file.Path; !file.once() {
		f.source, _ = Identify(file.Path) // opening the file below reports any error
	}
	if f.reader, err = file.open(r.Reading); err != nil {
		return nil, err
	}
	if f.reader.Alphabet() != file.Alphabet || !file.Part.IsZero() && f.source.Size != file.Part.Size {
		f.reader.Close()
		return nil, fmt.Errorf("%s: %w", file.label(), ErrChanged)
	}
	if f.out, err = r.create(r.Output.spec(file)); err != nil {
		f.reader.Close()
		return nil, err
	}
	f.parts = f.openParts()
	f.ctx, f.cancel = context.WithCancelCause(r.ctx)
	if file.once() {
		context.AfterFunc(f.ctx, func() { file.pipe.stop(nil) })
	}
	r.Observer.FileStarted(file.Path, device)
	return f, nil
}

// read sends the spans of the file to the writer and to the devices. When the file's context ends, read stops before
// the next span, or within a span if it waits for a pipe.
func (f *fileJob) read(budget int) {
	defer close(f.ordered)
	defer f.reader.Close()
	defer f.leave()
	defer func() { f.latest = latest{} }() // frees memory while the last spans are still computed
	capacity := lookAhead * budget
	if slices.ContainsFunc(f.Output.Columns, func(c store.Column) bool { return !c.Pooling.PerRecord() }) {
		capacity = budget // the hidden states of a span need much memory until they are written
	}
	for !f.complete {
		began := time.Now()
		select {
		case f.openSpans <- struct{}{}: // the writer takes the element out
		case <-f.ctx.Done():
			return
		}
		admitted := time.Now()
		s, err := f.readSpan(f.nextCapacity(capacity, budget))
		f.Observer.SpanRead(time.Since(admitted), admitted.Sub(began))
		f.ordered <- s
		if f.complete = errors.Is(err, io.EOF); err != nil && !f.complete {
			f.cancel(f.explain(err))
			return
		}
		f.enqueue(s)
		f.checkBeside()
	}
}

// readSpan reads and tokenizes the records of the next span. A span has at most capacity tokens, or it is a single
// record. For the last span of the file, the error is io.EOF.
func (f *fileJob) readSpan(capacity int) (s *span, err error) {
	s = &span{file: f, done: make(chan struct{})}
	defer func() { f.take(s) }()
	for {
		rec := f.next
		if f.next = nil; rec == nil {
			if rec, err = f.readRecord(); err != nil {
				return s, err
			}
		}
		if len(s.records) > 0 && s.tokens+rec.row.Tokens > capacity {
			f.next = rec
			return s, nil
		}
		s.records, s.tokens = append(s.records, rec), s.tokens+rec.row.Tokens
	}
}

// readRecord reads and tokenizes one record.
func (f *fileJob) readRecord() (*record, error) {
	raw, err := f.reader.Read()
	if err != nil {
		return nil, err
	}
	rec, err := f.newRecord(f.label(), raw)
	if err == nil {
		f.latest.unify(f.Job, rec)
		f.parts.restore(rec)
	}
	return rec, err
}

// enqueue queues a span for the devices. It may drop the span if the span's file has failed or the run has ended. The
// queue can be full only if it contains spans of failed files, because the writers of these files have already taken
// the elements of the spans out of openSpans.
func (r *run) enqueue(s *span) {
	select {
	case r.spans <- s:
	case <-s.file.ctx.Done():
	}
}
