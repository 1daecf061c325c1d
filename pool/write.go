package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"seqembed/internal/store"
)

// errLost would be a bug: a record that was neither written nor skipped.
var errLost = errors.New("records were lost")

// reasonMemory is why a record that fits no device is left out.
const reasonMemory = "out of memory"

// write stores the spans in the order of the file and commits the output. It ends when the reader has ended and every
// span has been computed, or is not going to be.
func (f *fileJob) write() error {
	defer f.cancel(nil)
	defer f.out.Abort()
	devices, complete := map[string]bool{}, true
	var err error // kept, because a file's context may end with the run before it fails
	for s := range f.ordered {
		if err == nil && f.computed(s) {
			devices[s.device] = true
			if err = f.writeSpan(s); err != nil {
				f.cancel(err)
			}
		} else {
			complete = false
		}
		<-f.places
	}
	if err = cmp.Or(err, f.failure()); err != nil {
		return err
	}
	if !complete || !f.whole {
		return ErrInterrupted
	}
	f.report.Device = strings.Join(slices.Sorted(maps.Keys(devices)), ", ")
	return f.commit()
}

// computed waits for a span and reports whether it has been computed. When the run ends it waits for what the devices
// have begun.
func (f *fileJob) computed(s *span) bool {
	select {
	case <-s.done:
		return true
	case <-f.ctx.Done():
	}
	if f.failure() != nil {
		return false
	}
	<-f.idle
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// failure is the reason for which the file has failed, or nil. The end of the run is none: a file that has been
// computed by then is written.
func (f *fileJob) failure() error {
	if cause := context.Cause(f.ctx); cause != context.Cause(f.run.ctx) {
		return cause
	}
	return nil
}

// writeSpan stores the records of a span and counts them.
func (f *fileJob) writeSpan(s *span) error {
	for _, rec := range s.records {
		if rec.failure != nil {
			f.report.Skipped[reasonMemory]++
			f.Observer.RecordSkipped(f.Path, rec.row.ID, rec.line, rec.failure)
			continue
		}
		err := f.out.Write(rec.row)
		switch {
		case errors.Is(err, store.ErrRecord):
			return fmt.Errorf("%s:%d: %w", f.label(), rec.line, err)
		case err != nil:
			return &outputError{err}
		}
		f.report.count(rec)
	}
	return nil
}

// commit checks that nothing was lost, puts the output under its name and describes it in the manifest.
func (f *fileJob) commit() error {
	report, reader := &f.report, f.reader
	skipped := report.Skipped[reasonMemory]
	for reason, n := range reader.SkipCounts() {
		report.Skipped[reason] += n
		skipped += n
	}
	report.Examples = reader.Skipped()
	if reader.Records() != report.Records+skipped {
		return fmt.Errorf("%s: %d records in, %d rows out, %d skipped: %w",
			f.label(), reader.Records(), report.Records, skipped, errLost)
	}
	if err := f.changed(); err != nil {
		return err
	}
	entry := f.Output.Template
	entry.Input = f.source
	var err error
	if entry.Input.SHA256, entry.Input.Size, err = reader.Digest(); err != nil {
		return err
	}
	entry.Device, entry.Skipped, entry.Started = report.Device, report.Skipped, report.Started
	entry.Records, entry.Tokens, entry.Truncated = report.Records, report.Tokens, report.Truncated
	// The manifest names the output before it is there: a run that is killed in between leaves nothing that the next
	// would refuse.
	for _, path := range f.Output.spec(f.File).Paths() {
		entry.Outputs = append(entry.Outputs, store.File{Path: path})
	}
	if err := f.describe(entry); err != nil {
		return err
	}
	if report.Outputs, err = f.out.Commit(); err != nil {
		return &outputError{err}
	}
	report.Finished = time.Now()
	entry.Outputs, entry.Finished = report.Outputs, report.Finished
	return f.describe(entry)
}

// describe appends an entry to the manifest, unless another process has put one there for the same output since this
// run began, and it does not match.
func (r *run) describe(entry store.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.manifest.Append(entry, func(other store.Entry) error {
		difference := r.difference(other)
		if difference == "" && other.Input.SHA256 != entry.Input.SHA256 {
			difference = "another content of " + entry.Input.Path
		}
		if difference == "" {
			return nil
		}
		return fmt.Errorf("another run into this folder has made %s meanwhile, with %s: %w",
			other.Outputs[0].Path, difference, ErrMixture)
	})
	if err != nil {
		return &outputError{err}
	}
	return nil
}
