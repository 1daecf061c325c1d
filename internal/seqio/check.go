package seqio

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// maxFaults is how many bad records an error names.
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

// err returns nil, the only fault, or a Faults.
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
	First []error // FormatErrors, or errors of the visitor of Check, in the order of the input
	Count int64   // of all of them
}

// Error names the first of them.
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

// Unwrap returns the first of them.
func (e *Faults) Unwrap() []error { return e.First }

// Check reads a file to its end and returns an error that names its bad records, those that visit refuses among them,
// or nil. It is many times as fast as a model, so that a bad record at the end of a file is known before the file has
// been computed. It ends early, with the records met by then, when ctx ends.
func Check(ctx context.Context, path string, o Options, visit func(Record) error) error {
	r, err := Open(path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	r.faults = new(faults)
	r.source.disk.hash = nil // a quarter of the time
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
	return r.faults.err(path)
}
