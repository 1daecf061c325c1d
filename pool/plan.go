package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"seqembed/internal/seqio"
)

// File is an input whose alphabet is known.
type File struct {
	seqio.Input
	Finding seqio.Finding  // how the alphabet is known
	Size    int64          // bytes on disk; 0 for standard input and pipes
	forced  seqio.Alphabet // Unknown where it was found
	pipe    *pipe          // of an input that can be read only once
	reader  *seqio.Reader  // of the pipe, whose bytes are gone once they were read
}

// once reports whether the file is standard input or a pipe, which can be read only once.
func (f File) once() bool { return f.pipe != nil }

// label returns the file's name in messages.
func (f File) label() string {
	if f.Path == "-" {
		return f.Name
	}
	return f.Path
}

// Plan opens every input once, so that an unreadable one is known before any model is loaded, and sorts the inputs by
// alphabet. The order of the inputs is kept. The error is ErrInterrupted: a pipe may be silent until ctx ends.
func Plan(ctx context.Context, inputs []seqio.Input, o seqio.Options) (dna, protein []File, failed []Failure, err error) {
	for _, in := range inputs {
		f, err := plan(ctx, in, o)
		switch {
		case ctx.Err() != nil:
			return nil, nil, nil, ErrInterrupted
		case err != nil:
			failed = append(failed, NewFailure(in.Path, err))
		case f.Alphabet == seqio.DNA:
			dna = append(dna, f)
		default:
			protein = append(protein, f)
		}
	}
	return dna, protein, failed, nil
}

// plan reads the beginning of an input.
func plan(ctx context.Context, in seqio.Input, o seqio.Options) (File, error) {
	f := File{Input: in, forced: in.Alphabet}
	o.Alphabet = in.Alphabet
	info, err := os.Stat(in.Path)
	if in.Path == "-" || err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err := f.connect(ctx, o, func() (io.ReadCloser, error) { return openPipe(in.Path) })
		return f, err
	}
	r, err := f.open(o)
	if err != nil {
		return f, err
	}
	r.Close() // an error comes again when the file is read
	if f.found(r); info != nil {
		f.Size = info.Size()
	}
	return f, nil
}

// connect begins to read an input that can be read only once. It is read until ctx ends.
func (f *File) connect(ctx context.Context, o seqio.Options, open func() (io.ReadCloser, error)) (err error) {
	p := newPipe(ctx, open)
	if f.reader, err = seqio.NewReader(p, f.label(), o); err != nil {
		p.stop(nil)
		if path := (*fs.PathError)(nil); errors.As(err, &path) && path.Op == "open" {
			err = fmt.Errorf("open input: %w", path) // which is no matter of the format
		}
		return err
	}
	f.pipe = p
	f.found(f.reader)
	return nil
}

func (f *File) found(r *seqio.Reader) { f.Finding, f.Alphabet = r.Finding(), r.Alphabet() }

// open begins to read the file.
func (f File) open(o seqio.Options) (*seqio.Reader, error) {
	if f.once() {
		return f.reader, nil
	}
	o.Alphabet = f.forced
	return seqio.Open(f.Path, o)
}

// largestFirst puts the files that take longest first, so that no device is left with a large one at the end.
func largestFirst(files []File) []File {
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b File) int { return cmp.Compare(b.Size, a.Size) })
	return sorted
}
