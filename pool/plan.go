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
	Finding   seqio.Finding  // the alphabet, and how it was determined
	Size      int64          // number of bytes to read; 0 for standard input and pipes
	Part      seqio.Part     // part of the file that a shard reads (see Job.Divide); zero if the job is no shard
	whole     seqio.Part     // the range of the whole file; zero if the input can be read only once
	parameter string         // description of Part for the manifest
	forced    seqio.Alphabet // alphabet that the user gave; Unknown if it was detected
	pipe      *pipe          // not nil if the input can be read only once
	reader    *seqio.Reader  // reads from pipe; has buffered the beginning that Plan has read; nil without pipe
}

// once reports whether the file is standard input or a pipe, which can be read only once.
func (f File) once() bool { return f.pipe != nil }

// label returns the file's name for messages.
func (f File) label() string {
	if f.Path == "-" {
		return f.Name
	}
	return f.Part.Name(f.Path)
}

// Plan opens every input once, so that unreadable inputs are found before a model is loaded, and divides the inputs by
// alphabet. It keeps their order. If ctx ends, for example while a pipe is silent, Plan returns ErrInterrupted.
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

// plan reads the beginning of an input to find its alphabet.
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
	f.whole = seqio.Whole(r)
	r.Close() // an error appears again when the file is read
	if f.found(r); info != nil {
		f.Size = info.Size()
	}
	return f, nil
}

// connect starts to read an input that can be read only once. It reads through a pipe (see newPipe) that is stopped
// when ctx ends, and sets f.reader and f.pipe.
func (f *File) connect(ctx context.Context, o seqio.Options, open func() (io.ReadCloser, error)) (err error) {
	p := newPipe(ctx, open)
	if f.reader, err = seqio.NewReader(p, f.label(), o); err != nil {
		p.stop(nil)
		if path := (*fs.PathError)(nil); errors.As(err, &path) && path.Op == "open" {
			err = fmt.Errorf("open input: %w", path) // otherwise the failure would have the type "format"
		}
		return err
	}
	f.pipe = p
	f.found(f.reader)
	return nil
}

// found records the alphabet that r was given or has detected.
func (f *File) found(r *seqio.Reader) { f.Finding, f.Alphabet = r.Finding(), r.Alphabet() }

// open returns a reader for the file, or in a shard for the part of the file that the shard reads.
func (f File) open(o seqio.Options) (*seqio.Reader, error) {
	if f.once() {
		return f.reader, nil
	}
	return seqio.Open(f.Path, f.reading(o))
}

// largestFirst returns the files in descending order of size, so that no reader is still at a large file when the other
// readers have finished.
func largestFirst(files []File) []File {
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b File) int { return cmp.Compare(b.Size, a.Size) })
	return sorted
}
