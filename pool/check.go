package pool

import (
	"cmp"

	"seqembed/internal/seqio"
)

// checkBeside checks the rest of a file of several spans beside its first batches, in a goroutine that ends with the
// file: its last record cannot cost the time of all others.
func (f *fileJob) checkBeside() {
	if f.complete || f.checked != nil || f.once() {
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
