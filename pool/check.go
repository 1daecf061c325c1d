package pool

import (
	"cmp"

	"seqembed/internal/seqio"
)

// checkBeside starts a goroutine that checks all records of the file while its first batches are computed. So a bad
// record at the end of the file is found early. checkBeside starts no goroutine if the reader has already reached the
// end of the file, or if the input can be read only once. The goroutine ends after the last record, or when the file's
// context ends.
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

// check reads the file to its end and returns an error that lists the bad records (see seqio.Faults). If check finds an
// error in a file that has changed since it was opened, it returns an ErrChanged instead. It stops when the file's
// context ends.
func (f *fileJob) check() error {
	err := seqio.Check(f.ctx, f.Path, f.reading(f.Reading), func(r seqio.Record) error { return f.tooLong(f.label(), r) })
	if changed := f.changed(); err != nil && changed != nil {
		return changed
	}
	return err
}

// explain looks for the cause of err, the error that ended the reading of the file. It returns the error of check,
// which lists the bad records or is an ErrChanged. If check finds no error, explain returns an ErrChanged for a file
// that has changed, and err for any other file. For an input that can be read only once, explain always returns err.
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
