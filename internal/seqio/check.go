package seqio

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// maxFaults is the maximum number of bad records that the error for an input names. The error counts further bad
// records without naming them.
const maxFaults = 10

// faults collects the bad records of an input.
type faults struct {
	first []error
	count int64
}

func (f *faults) add(err error) {
	f.count++
	if len(f.first) < maxFaults {
		f.first = append(f.first, err)
	}
}

// err returns nil if there are no faults, the fault itself if there is exactly one, and a *Faults if there are more.
func (f *faults) err(file string) error {
	switch {
	case f.count == 0:
		return nil
	case f.count == 1:
		return f.first[0]
	}
	return &Faults{File: file, First: f.first, Count: f.count}
}

// Faults is the error of an input with several bad records.
type Faults struct {
	File  string
	First []error // the first ten errors at most, in input order; each is a FormatError or comes from Check's visit
	Count int64   // number of all bad records
}

// Error returns a message that names the errors of First.
func (e *Faults) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d bad records: ", e.File, e.Count)
	for i, err := range e.First {
		if i > 0 {
			b.WriteString("; ")
		}
		if rest, ok := strings.CutPrefix(err.Error(), e.File+":"); ok {
			b.WriteString("line " + rest)
		} else {
			b.WriteString(err.Error())
		}
	}
	if more := e.Count - int64(len(e.First)); more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String()
}

// Unwrap returns the errors in First.
func (e *Faults) Unwrap() []error { return e.First }

// Check reads a file to its end, without computing embeddings, so that even a bad record at the end is found before a
// long run. If it finds bad records, it returns an error that names the first ten. Records for which visit returns an
// error are bad, too. If ctx ends, Check returns early, with the bad records found so far.
func Check(ctx context.Context, path string, o Options, visit func(Record) error) error {
	r, err := Open(path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	r.faults = new(faults)
	r.source.disk.hash = nil // no digest is needed, and hashing takes a quarter of the time
	for ctx.Err() == nil {
		record, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			r.faults.add(err)
			break
		}
		if err := visit(record); err != nil {
			r.faults.add(err)
		}
	}
	return r.faults.err(r.name)
}
