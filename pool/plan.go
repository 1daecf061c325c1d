package pool

import (
	"cmp"
	"os"
	"slices"

	"seqembed/internal/seqio"
)

// File is an input whose alphabet is known.
type File struct {
	seqio.Input
	Size   int64         // bytes on disk; 0 for standard input and pipes
	reader *seqio.Reader // of an input that can be read only once
}

// once reports whether the file is standard input or a pipe: what was read
// from it is gone, and it may keep a reader waiting for ever.
func (f File) once() bool { return f.reader != nil }

// label is the file's name in messages.
func (f File) label() string {
	if f.Path == "-" {
		return f.Name
	}
	return f.Path
}

// Plan opens every input once, so that what cannot be read is known before
// any model is loaded, and sorts the inputs by alphabet. The order of the
// inputs is kept.
func Plan(inputs []seqio.Input, o seqio.Options) (dna, protein []File, failed []Failure) {
	for _, in := range inputs {
		o.Alphabet = in.Alphabet
		r, err := seqio.Open(in.Path, o)
		if err != nil {
			failed = append(failed, NewFailure(in.Path, err))
			continue
		}
		f := File{Input: in}
		f.Alphabet = r.Alphabet()
		info, err := os.Stat(in.Path)
		if in.Path == "-" || err == nil && !info.Mode().IsRegular() {
			f.reader = r
		} else {
			r.Close() // reading it again reports whatever is wrong with it
		}
		if f.reader == nil && err == nil {
			f.Size = info.Size()
		}
		if f.Alphabet == seqio.DNA {
			dna = append(dna, f)
		} else {
			protein = append(protein, f)
		}
	}
	return dna, protein, failed
}

// open begins to read the file.
func (f File) open(o seqio.Options) (*seqio.Reader, error) {
	if f.once() {
		return f.reader, nil
	}
	o.Alphabet = f.Alphabet
	return seqio.Open(f.Path, o)
}

// largestFirst puts the files that take longest first, so that no device is
// left with a large one at the end.
func largestFirst(files []File) []File {
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b File) int { return cmp.Compare(b.Size, a.Size) })
	return sorted
}
