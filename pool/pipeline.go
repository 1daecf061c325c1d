package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
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

// filesUnderWay is how many files of one reader may be read or, being read,
// wait for their last spans and for the disk.
const filesUnderWay = 4

// span is a stretch of the file: what is packed into batches together.
type span struct {
	records []*record
	tokens  int
	bytes   int64 // of the file as it is on disk
}

// passage is one file on its way through the pool.
type passage struct {
	*run
	group   *group
	file    File
	reader  *seqio.Reader
	source  store.Source // before it was read
	out     store.Writer
	work    context.Context // ends when a stage fails, so that no other waits for it
	cancel  context.CancelCauseFunc
	ordered chan *task  // every span, computed or not; there is room for all
	holds   atomic.Bool // the reader has a place in the run's spans
	whole   bool        // every span was handed out; the reader's until ordered is closed
	report  FileReport
}

// feed is the life of a device's reader: it takes file after file and hands
// its spans to the group's devices, until no file is left or no device.
func (r *run) feed(g *group, device string, budget int) {
	places := make(chan struct{}, filesUnderWay)
	for g.ctx.Err() == nil {
		select {
		case places <- struct{}{}:
		case <-g.ctx.Done():
			return
		}
		var f File
		select {
		case f = <-r.queue:
		case <-r.done:
			return
		case <-g.ctx.Done():
			return
		}
		p, err := r.open(g, f, device)
		if err != nil {
			r.settle(g, FileReport{}, f, err)
			<-places
			continue
		}
		r.files.Add(1)
		go func() {
			defer r.files.Done()
			err := p.write()
			r.settle(g, p.report, f, err)
			<-places
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			p.read(budget)
		}()
		if !f.once() {
			<-read
			continue
		}
		select {
		case <-read:
		case <-p.work.Done(): // the reader may wait for its pipe for ever
			if p.holds.Swap(false) {
				<-r.spans
			}
		}
	}
}

// open opens the file and its output.
func (r *run) open(g *group, f File, device string) (*passage, error) {
	p := &passage{run: r, group: g, file: f, ordered: make(chan *task, cap(r.spans)),
		report: FileReport{Path: f.Path, backend: g.backend, Skipped: map[string]int64{}, Started: time.Now()}}
	var err error
	if p.source.Path = f.Path; !f.once() {
		p.source, _ = identify(f.Path) // opening it reports what is wrong with it
	}
	if p.reader, err = f.open(r.Reading); err != nil {
		return nil, err
	}
	if p.out, err = store.Create(r.Output.spec(f)); err != nil {
		p.reader.Close()
		return nil, &outputError{err}
	}
	p.work, p.cancel = context.WithCancelCause(g.ctx)
	r.Observer.FileStarted(f.Path, device)
	return p, nil
}

// read tokenizes the file's records and hands them out, a span of lookAhead
// batches of that budget at a time.
func (p *passage) read(budget int) {
	if err := p.cut(budget); err != nil {
		p.cancel(err)
	}
	p.reader.Close()
	if p.holds.Swap(false) {
		<-p.spans
	}
	close(p.ordered)
	if p.work.Err() != nil && p.file.once() {
		p.release() // what nobody writes
	}
}

func (p *passage) cut(budget int) error {
	capacity := lookAhead * budget
	if p.PerToken {
		capacity = budget // whole hidden states wait to be written
	}
	var s span
	var position int64
	next := func() bool {
		s.bytes, position = p.reader.Position()-position, p.reader.Position()
		ok := p.handOut(s)
		s = span{}
		return ok
	}
	if !p.hold() {
		return nil
	}
	for {
		rec, err := p.reader.Read()
		if errors.Is(err, io.EOF) {
			p.whole = next()
			return nil
		}
		if err != nil {
			return err
		}
		tokenized, err := p.newRecord(p.file.label(), rec)
		if err != nil {
			return err
		}
		if n := tokenized.windows[0].tokens(); n > extremeTokens {
			p.Observer.LongRecord(p.file.Path, rec.ID, n)
		}
		if s.tokens > 0 && s.tokens+tokenized.row.Tokens > capacity && !(next() && p.hold()) {
			return nil
		}
		s.records, s.tokens = append(s.records, tokenized), s.tokens+tokenized.row.Tokens
	}
}

// hold waits for a place for the next span, unless work has ended.
func (p *passage) hold() bool {
	select {
	case p.spans <- struct{}{}:
		p.holds.Store(true)
		return true
	case <-p.work.Done():
		return false
	}
}

// handOut gives a span, and its place, to the writer and the devices, unless
// work has ended.
func (p *passage) handOut(s span) bool {
	t := &task{work: p.work, cancel: p.cancel, file: p.file, span: s, done: make(chan struct{})}
	if p.work.Err() != nil || !p.holds.Swap(false) {
		return false
	}
	p.ordered <- t
	select {
	case p.group.tasks <- t:
		return true
	case <-p.work.Done():
		return false
	}
}

// broken is why the file fails or goes to another group, or nil. Being
// interrupted does not break it: if it has been computed, it is written.
func (p *passage) broken() error {
	cause := context.Cause(p.work)
	var stranded *errStranded
	if cause == context.Cause(p.group.ctx) && !errors.As(cause, &stranded) {
		return nil
	}
	return cause
}

// release gives back the places of spans that are not going to be written.
func (p *passage) release() {
	for {
		select {
		case _, ok := <-p.ordered:
			if !ok {
				return
			}
			<-p.spans
		default:
			return
		}
	}
}

// write stores the spans in the order of the file and puts the output under
// its name.
func (p *passage) write() error {
	defer p.cancel(nil)
	defer p.out.Abort()
	var abandoned <-chan struct{}
	if p.file.once() {
		abandoned = p.work.Done() // its reader may never come to an end
	}
	devices, missing := map[string]bool{}, false
	for open := true; open; {
		var t *task
		select {
		case t, open = <-p.ordered: // nil when it is closed
		case <-abandoned:
			p.release()
			return cmp.Or(p.broken(), ErrInterrupted)
		}
		if t == nil {
			break
		}
		if t.computed() && p.broken() == nil {
			devices[t.device] = true
			if err := p.writeSpan(t.span); err != nil {
				p.cancel(err)
			}
		} else {
			missing = true
		}
		<-p.spans
	}
	if err := p.broken(); err != nil {
		return err
	}
	if missing || !p.whole {
		return ErrInterrupted
	}
	p.report.Device = strings.Join(slices.Sorted(maps.Keys(devices)), ", ")
	return p.commit()
}

// writeSpan stores the records of a span and counts them.
func (p *passage) writeSpan(s span) error {
	for _, rec := range s.records {
		if rec.failure != nil {
			p.report.Skipped[reasonMemory]++
			p.Observer.RecordSkipped(p.file.Path, rec.row.ID, rec.line, rec.failure)
			continue
		}
		err := p.out.Write(rec.row)
		switch {
		case errors.Is(err, store.ErrRecord):
			return fmt.Errorf("%s:%d: %w", p.file.label(), rec.line, err)
		case err != nil:
			return &outputError{err}
		}
		p.report.count(rec)
	}
	return nil
}

// commit checks that nothing was lost, puts the output under its name and
// describes it in the manifest.
func (p *passage) commit() error {
	report, reader, f := &p.report, p.reader, p.file
	skipped := report.Skipped[reasonMemory]
	for reason, n := range reader.SkipCounts() {
		report.Skipped[reason] += n
		skipped += n
	}
	report.Examples = reader.Skipped()
	if reader.Records() != report.Records+skipped {
		return fmt.Errorf("%s: %d records in, %d rows out, %d skipped: %w", f.label(), reader.Records(), report.Records, skipped, errLost)
	}
	entry := p.Output.Template
	entry.Input = p.source
	var err error
	if entry.Input.SHA256, entry.Input.Size, err = reader.Digest(); err != nil {
		return err
	}
	entry.Device, entry.Backend = report.Device, report.backend
	entry.Records, entry.Tokens, entry.Truncated = report.Records, report.Tokens, report.Truncated
	entry.Skipped, entry.Started = report.Skipped, report.Started
	// The manifest names the output before it is there: a run that is killed
	// in between leaves nothing that the next would refuse.
	for _, path := range p.Output.spec(f).Paths() {
		entry.Outputs = append(entry.Outputs, store.File{Path: path})
	}
	if err := p.describe(entry); err != nil {
		return err
	}
	if report.Outputs, err = p.out.Commit(); err != nil {
		return &outputError{err}
	}
	report.Finished = time.Now()
	entry.Outputs, entry.Finished = report.Outputs, report.Finished
	return p.describe(entry)
}

// describe appends an entry to the manifest, unless another process has put
// one there for the same output since this run began, and it does not match.
func (r *run) describe(entry store.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.manifest.Append(entry, func(other store.Entry) error {
		what := r.difference(other)
		if what == "" && other.Input.SHA256 != entry.Input.SHA256 {
			what = "another content of " + entry.Input.Path
		}
		if what == "" {
			return nil
		}
		return fmt.Errorf("another run into this folder has made %s meanwhile, with %s: %w", other.Outputs[0].Path, what, ErrMixture)
	})
	if err != nil {
		return &outputError{err}
	}
	return nil
}
