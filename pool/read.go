package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

const (
	// lookAhead is how many batches of tokens are read before they are sorted by length: enough that batches are of one
	// length, and little memory.
	lookAhead = 4
	// extremeTokens is the length from which a record is announced.
	extremeTokens = 50_000
)

// span is a stretch of a file, which is packed into batches together, on its way from the reader to the writer.
type span struct {
	file     *fileJob
	records  []*record
	tokens   int
	bytes    int64         // of the file as it is on disk
	failures int           // devices that failed on it, guarded by the run
	device   string        // that computed it
	left     int           // batches that have not come back, while a worker has it
	done     chan struct{} // closed when it has been computed
}

// fileJob is one file on its way through the pool. Its reader is the goroutine that runs read, its writer the one that
// runs write.
type fileJob struct {
	*run
	File
	ctx    context.Context // ends with the run's, and when the file fails: cancel gives the reason
	cancel context.CancelCauseFunc
	source store.Source // as identify found it before it was read
	reader *seqio.Reader
	out    store.Writer

	ordered  chan *span // every span, computed or not; has room for as many as there are places
	next     *record    // the first of the next span, which had no room in the last one
	checked  chan error // of a file that is checked beside its batches: what check found; holds one
	position int64      // in the file on disk, where the last span ended
	whole    bool       // every span was handed out; the reader's until ordered is closed
	report   FileReport // the writer's
}

// read takes file after file until none is left or the run ends.
func (r *run) read(device string, budget int) {
	for file := range r.files {
		select {
		case r.opened <- struct{}{}:
		case <-r.ctx.Done():
		}
		if r.ctx.Err() != nil {
			return
		}
		f, err := r.begin(file, device)
		if err != nil {
			r.settle(file, FileReport{}, err)
			<-r.opened
			continue
		}
		r.io.Go(func() {
			err := f.write()
			r.settle(file, f.report, err)
			<-r.opened
		})
		f.read(budget)
	}
}

// begin opens a file and its output.
func (r *run) begin(file File, device string) (*fileJob, error) {
	f := &fileJob{run: r, File: file, ordered: make(chan *span, cap(r.places)),
		report: FileReport{Path: file.Path, Skipped: map[string]int64{}, Started: time.Now()}}
	var err error
	if f.source.Path = file.Path; !file.once() {
		f.source, _ = identify(file.Path) // opening it reports what is wrong with it
	}
	if f.reader, err = file.open(r.Reading); err != nil {
		return nil, err
	}
	if f.reader.Alphabet() != file.Alphabet {
		f.reader.Close()
		return nil, fmt.Errorf("%s: %w", file.label(), ErrChanged)
	}
	if f.out, err = store.Create(r.Output.spec(file)); err != nil {
		f.reader.Close()
		return nil, &outputError{err}
	}
	f.ctx, f.cancel = context.WithCancelCause(r.ctx)
	if file.once() {
		context.AfterFunc(f.ctx, func() { file.pipe.stop(nil) })
	}
	r.Observer.FileStarted(file.Path, device)
	return f, nil
}

// read hands the spans of the file to the writer and to the devices. It ends with the file's context: before the next
// span, or, in the middle of one, where it waits for a pipe.
func (f *fileJob) read(budget int) {
	defer close(f.ordered)
	defer f.reader.Close()
	capacity := lookAhead * budget
	if f.PerToken {
		capacity = budget // whole hidden states wait to be written
	}
	for !f.whole {
		select {
		case f.places <- struct{}{}: // given back by the writer
		case <-f.ctx.Done():
			return
		}
		s, err := f.cut(capacity)
		f.ordered <- s
		if f.whole = errors.Is(err, io.EOF); err != nil && !f.whole {
			f.cancel(f.explain(err))
			return
		}
		f.enqueue(s)
		f.checkBeside()
	}
}

// checkBeside checks the rest of a file of several spans beside its first batches, in a goroutine that ends with the
// file: its last record cannot cost the time of all others.
func (f *fileJob) checkBeside() {
	if f.whole || f.checked != nil || f.once() {
		return
	}
	f.checked = make(chan error, 1)
	f.io.Go(func() {
		err := f.check()
		if err != nil {
			f.cancel(err)
		}
		f.checked <- err
	})
}

// check reads the file to its end and returns an error that names all its bad records. It ends with the file's context.
func (f *fileJob) check() error {
	o := f.Reading
	o.Alphabet = f.forced
	err := seqio.Check(f.ctx, f.Path, o, func(r seqio.Record) error { return f.tooLong(f.label(), r) })
	if changed := f.changed(); err != nil && changed != nil {
		return changed
	}
	return err
}

// explain returns the error with which the reading of the file ended, or one that names all its bad records.
func (f *fileJob) explain(err error) error {
	var found error
	switch {
	case f.once():
		return err
	case f.checked != nil:
		found = <-f.checked
	default:
		found = f.check()
	}
	return cmp.Or(found, f.changed(), err)
}

// cut reads and tokenizes the records of the next span: of at most that many tokens, or one record. The error of the
// last span is io.EOF.
func (f *fileJob) cut(capacity int) (s *span, err error) {
	s = &span{file: f, done: make(chan struct{})}
	defer func() {
		position := f.reader.Position()
		s.bytes, f.position = position-f.position, position
	}()
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
	if err != nil {
		return nil, err
	}
	if n := rec.windows[0].tokens(); n > extremeTokens {
		f.Observer.LongRecord(f.Path, raw.ID, n)
	}
	return rec, nil
}

// enqueue hands a span to the devices. It waits only for those of failed files to be taken out of the queue, whose
// places have been given back.
func (r *run) enqueue(s *span) {
	select {
	case r.spans <- s:
	case <-s.file.ctx.Done():
	}
}
