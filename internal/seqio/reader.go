package seqio

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// Reader reads the records of one input, one after the other. It is for one goroutine at a time.
type Reader struct {
	name    string
	options Options
	file    *os.File // nil where the input belongs to the caller
	source  *source
	parser  *parser

	alphabet Alphabet
	detected int // records that the alphabet was detected from; 0 where it was given
	clean    *cleaner
	pending  []rawRecord // read ahead to detect the alphabet
	ahead    error       // what follows them; nil: more records

	index    int64 // of the next record
	ids      *idSet
	skipped  skipLog
	err      error // what Read returns for ever
	finished bool  // Read has returned io.EOF
	closed   bool
}

// Open opens a file, or standard input for "-", whatever its compression. The first records are read at once: an input
// that is empty, a folder or not FASTA or FASTQ is an error here.
func Open(path string, o Options) (*Reader, error) {
	if path == "-" {
		return NewReader(os.Stdin, "stdin", o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open input: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open input: %w", err)
	}
	if info.IsDir() {
		f.Close()
		return nil, &FormatError{File: path, Msg: "this is a folder, not a sequence file", Err: ErrNotSequences}
	}
	r := &Reader{name: path, options: o, file: f}
	if err := r.start(f); err != nil {
		return nil, err
	}
	return r, nil
}

// NewReader reads from input, which the caller closes, after the Reader. The name stands for the file in errors.
func NewReader(input io.Reader, name string, o Options) (*Reader, error) {
	r := &Reader{name: name, options: o}
	if err := r.start(input); err != nil {
		return nil, err
	}
	return r, nil
}

// start sets the pipeline up and reads ahead as far as the alphabet needs; it closes what it opened where that fails.
func (r *Reader) start(input io.Reader) error {
	err := r.connect(input)
	if err == nil {
		err = r.readAhead()
	}
	if err != nil {
		r.Close()
	}
	return err
}

func (r *Reader) connect(input io.Reader) error {
	src, err := newSource(input)
	if err != nil {
		return &FormatError{File: r.name, Msg: err.Error(), Err: err}
	}
	r.source = src
	r.parser = newParser(src, r.name)
	r.ids = newIDSet()
	return nil
}

// readAhead decides the alphabet. An input whose very first record cannot be read is an error.
func (r *Reader) readAhead() error {
	limit := 1
	if r.options.Alphabet == Unknown {
		limit = detectRecords
	}
	var seen composition
	for len(r.pending) < limit && seen.letters() < detectLetters {
		raw, err := r.parser.next()
		if err != nil {
			r.ahead = err
			break
		}
		if raw.header != "" { // without one it is a bad record
			seen.add(raw.letters)
		}
		r.pending = append(r.pending, raw)
	}
	if len(r.pending) == 0 {
		return r.ahead
	}
	r.alphabet = r.options.Alphabet
	if r.alphabet == Unknown {
		r.alphabet = seen.alphabet()
		r.detected = len(r.pending)
	}
	r.clean = newCleaner(r.alphabet, r.options.KeepCase)
	return nil
}

// Alphabet is the alphabet given or detected; never Unknown.
func (r *Reader) Alphabet() Alphabet { return r.alphabet }

// Read returns the next record, and io.EOF after the last. Any other error is final: a FormatError, or what opening and
// reading files can give.
func (r *Reader) Read() (Record, error) {
	for r.err == nil {
		record, ok, err := r.next()
		if err != nil {
			r.err, r.finished = err, err == io.EOF
			break
		}
		if ok {
			return record, nil
		}
	}
	return Record{}, r.err
}

// next returns the next record, or false where it is left out.
func (r *Reader) next() (Record, bool, error) {
	raw, err := r.nextRaw()
	if err != nil {
		return Record{}, false, err
	}
	record := Record{Line: raw.line, Index: r.index}
	r.index++
	record.ID, record.Description = splitHeader(raw.header)
	if record.ID == "" {
		return r.bad(record, ReasonNoID, "a header without an id")
	}
	record.Seq, err = r.clean.clean(raw.letters)
	if err != nil {
		return r.bad(record, ReasonIllegalLetter, err.Error()+r.whyAlphabet())
	}
	if len(record.Seq) == 0 {
		return r.bad(record, ReasonEmpty, "no sequence")
	}
	if len(record.Seq) < r.options.MinLength {
		r.skip(record, ReasonTooShort, fmt.Sprintf("%d letters, fewer than %d", len(record.Seq), r.options.MinLength))
		return Record{}, false, nil
	}
	if r.options.Duplicates == DuplicateSuffix {
		record.ID = r.ids.unique(record.ID)
	} else if earlier, ok := r.ids.claim(record.ID, record.Line); !ok {
		return Record{}, false, r.formatError(record, ErrDuplicateID, fmt.Sprintf("the record on line %d has the same id", earlier))
	}
	return record, true, nil
}

// nextRaw returns the next record as it is in the input.
func (r *Reader) nextRaw() (rawRecord, error) {
	if len(r.pending) > 0 {
		raw := r.pending[0]
		r.pending[0] = rawRecord{}
		r.pending = r.pending[1:]
		return raw, nil
	}
	if r.ahead != nil {
		return rawRecord{}, r.ahead
	}
	return r.parser.next()
}

// bad leaves a record out or ends the reading, as the options say.
func (r *Reader) bad(record Record, reason, detail string) (Record, bool, error) {
	if r.options.OnBad == BadSkip {
		r.skip(record, reason, detail)
		return Record{}, false, nil
	}
	return Record{}, false, r.formatError(record, ErrBadRecord, detail)
}

func (r *Reader) skip(record Record, reason, detail string) {
	r.skipped.add(Skip{ID: record.ID, Line: record.Line, Reason: reason, Detail: detail})
}

func (r *Reader) formatError(record Record, kind error, msg string) error {
	return &FormatError{File: r.name, Record: record.ID, Line: record.Line, Msg: msg, Err: kind}
}

// whyAlphabet reminds a reader of an error that the alphabet was a conclusion.
func (r *Reader) whyAlphabet() string {
	if r.detected == 0 {
		return ""
	}
	return fmt.Sprintf(" (the first %d records made the input %s)", r.detected, r.alphabet)
}

// SkipCounts returns how many records were left out so far, by reason.
func (r *Reader) SkipCounts() map[string]int64 {
	counts := make(map[string]int64, len(r.skipped.counts))
	maps.Copy(counts, r.skipped.counts)
	return counts
}

// Skipped returns the first 20 records left out for each reason, in input order.
func (r *Reader) Skipped() []Skip { return slices.Clone(r.skipped.examples) }

// Records returns how many records were met so far, those left out counted.
func (r *Reader) Records() int64 { return r.index }

// Position returns how many bytes of the input, as it came, have been taken in so far: more than the records returned
// took, by what is buffered.
func (r *Reader) Position() int64 { return r.source.disk.size }

// Digest returns the SHA-256, in hexadecimal, and the size in bytes of the input as it came, compressed or not. Both are
// known once Read has returned io.EOF; before, the error is ErrNotRead.
func (r *Reader) Digest() (sum string, size int64, err error) {
	if !r.finished {
		return "", 0, fmt.Errorf("%s: %w", r.name, ErrNotRead)
	}
	sum, size = r.source.disk.digest()
	return sum, size, nil
}

// Close frees what Open opened. It is safe to call twice.
func (r *Reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.pending = nil
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", r.name, os.ErrClosed)
	}
	if r.source != nil {
		r.parser.close()
		r.source.close()
	}
	if r.file == nil {
		return nil
	}
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close input: %w", err)
	}
	return nil
}
