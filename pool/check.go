package pool

import (
	"cmp"

	"seqembed/internal/seqio"
)

// checkBeside starts a goroutine that checks the whole file while its first batches are computed. This finds a bad
// record at the end before all other records have been computed. It starts none if the reader has already reached the
// end of the file, or if the input can be read only once. The goroutine ends with the file.
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

// check reads the file to its end and returns an error that names all its bad records. It stops when the file's context
// ends.
func (f *fileJob) check() error {
	err := seqio.Check(f.ctx, f.Path, f.reading(f.Reading), func(r seqio.Record) error { return f.tooLong(f.label(), r) })
	if changed := f.changed(); err != nil && changed != nil {
		return changed
	}
	return err
}

// explain replaces err, the error that ended the reading of the file, by an error that names all bad records of the
// file. If there is none, it returns an ErrChanged if the file has changed, and err otherwise. For an input that can be
// read only once, it always returns err.
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
