package pool

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"seqembed/internal/seqio"
	"seqembed/internal/store"
)

// errLost reports a bug: a record was neither written nor skipped.
var errLost = errors.New("records were lost")

// write stores the spans of records in the order of the file and commits the output. It returns after the reader has
// ended and every span has been computed or never will be.
func (f *fileJob) write() error {
	defer f.cancel(nil)
	defer f.out.Abort()
	defer f.parts.close()
	devices, complete := map[string]bool{}, true
	began := time.Now()
	// stored tells the Observer how long the writer waited, until the time computed, and how long it has stored since.
	stored := func(computed time.Time) {
		f.Observer.SpanWritten(time.Since(computed), computed.Sub(began))
		began = time.Now()
	}
	var err error // kept, because f.cancel(err) has no effect if the run has already ended
	for s := range f.ordered {
		if err == nil && complete && f.computed(s) {
			computed := time.Now()
			devices[s.device] = true
			if err = f.writeSpan(s); err != nil {
				f.cancel(err)
			}
			stored(computed)
		} else {
			complete = false
		}
		<-f.openSpans
	}
	if err = cmp.Or(err, f.failure()); err != nil {
		return err
	}
	if !complete || !f.complete {
		return ErrInterrupted
	}
	f.report.Device = strings.Join(slices.Sorted(maps.Keys(devices)), ", ")
	defer stored(time.Now())
	return f.parts.end(f.commit())
}

// computed waits until a span of records has been computed or never will be, and reports whether it has been computed.
// When the run ends, it waits for the batches in flight.
func (f *fileJob) computed(s *span) bool {
	for !isClosed(s.done) {
		select {
		case <-s.done:
		case <-f.parts.due():
			f.parts.endPart()
		case <-f.ctx.Done():
			if f.failure() != nil {
				return false
			}
			f.parts.endPart() // keeps the results now, because the process may be killed while the devices compute
			<-f.workersDone
			return isClosed(s.done)
		}
	}
	return true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// writeSpan stores and counts the records of a span.
func (f *fileJob) writeSpan(s *span) error {
	for _, rec := range s.records {
		failure := rec.failure()
		if failure != nil && f.Reading.OnBad != seqio.BadSkip {
			return failure // leaveOut could not cancel f with this failure if the run had already ended
		}
		if failure != nil {
			f.report.Skipped[reasonMemory]++
			f.Observer.RecordSkipped(f.Path, rec.row.ID, rec.line, failure)
			f.parts.keep(rec)
			continue
		}
		rows := f.makeRows(rec)
		for _, row := range rows {
			if err := f.out.Write(row); errors.Is(err, store.ErrRecord) {
				return fmt.Errorf("%s:%d: %w", f.label(), rec.line, err)
			} else if err != nil {
				return &outputError{err}
			}
		}
		f.report.count(rec)
		f.Observer.RecordWritten(f.Path, rec.line, rows)
		f.parts.keep(rec)
	}
	return nil
}

// commit checks that no record was lost, commits the output and adds it to the manifest.
func (f *fileJob) commit() error {
	report, reader := &f.report, f.reader
	skipped := report.Skipped[reasonMemory]
	for reason, n := range reader.SkipCounts() {
		report.Skipped[reason] += n
		skipped += n
	}
	report.Examples, report.Overflows, report.CutShort = reader.Skipped(), f.out.Overflows(), reader.CutShort()
	if reader.Records() != report.Records+skipped {
		return fmt.Errorf("%s: %d records in, %d rows out, %d skipped: %w", f.label(), reader.Records(), report.Records, skipped, errLost)
	}
	if err := f.changed(); err != nil {
		return err
	}
	entry := f.template(f.File)
	entry.Input = f.source
	sum, size, err := reader.Digest()
	if err != nil {
		return err
	}
	if entry.Input.SHA256 = sum; f.Part.IsZero() {
		entry.Input.Size = size // for a part of the file, Size stays that of the whole file
	}
	entry.Device, entry.Skipped, entry.Started = report.Device, report.Skipped, report.Started
	entry.Records, entry.Tokens, entry.Truncated = report.Records, report.Tokens, report.Truncated
	entry.Repeated, entry.Overflows = report.Repeated, report.Overflows
	if err := f.checkFolder(nil); err != nil {
		return err
	}
	// The manifest names the output before the output exists. Otherwise the next run would refuse the output of a run
	// that was killed just after the commit.
	for _, path := range f.Output.spec(f.File).Paths() {
		entry.Outputs = append(entry.Outputs, store.File{Path: path})
	}
	if err := f.appendEntry(entry); err != nil {
		return err
	}
	if report.Outputs, err = f.out.Commit(); err != nil {
		return &outputError{err}
	}
	report.Finished = time.Now()
	entry.Outputs, entry.Finished = report.Outputs, report.Finished
	return f.appendEntry(entry)
}
