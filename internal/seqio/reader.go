package seqio

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// Reader reads the records of one input. Only one goroutine at a time may use it.
type Reader struct {
	name    string
	options Options
	file    *os.File // nil if the input belongs to the caller
	size    int64    // size of the file in bytes; 0 if file is nil
	source  *source
	parser  *parser

	decision decision // alphabet of the records, and the reason for it
	clean    *cleaner
	pending  []rawRecord // records that were read to detect the alphabet, and that Read has not returned yet
	ahead    error       // the error after the pending records; nil if there may be more records

	index    int64 // index of the next record
	others   int64 // number of records so far that do not belong to Options.Part
	ids      *idSet
	skipped  skipLog
	faults   *faults // collects the errors of records; if nil, the first such error ends the reading
	err      error   // the error that every later Read returns
	finished bool    // whether Read has returned io.EOF
	closed   bool
}

// Open opens a file, or standard input for "-", and decompresses it. It reads the first records at once, so it returns
// an error for a folder, an empty input, or an input that is neither FASTA nor FASTQ.
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
	r := &Reader{name: o.Part.Name(path), options: o, file: f, size: info.Size()}
	if err := r.start(o.Part.source(f)); err != nil {
		return nil, err
	}
	return r, nil
}

// NewReader returns a Reader of input. The caller must close the Reader first and then input. In errors the input is
// called name.
func NewReader(input io.Reader, name string, o Options) (*Reader, error) {
	r := &Reader{name: name, options: o}
	if err := r.start(newSource(input)); err != nil {
		return nil, err
	}
	return r, nil
}

// start is called with the two results of opening a source. It creates a parser for the source and reads as many
// records as are needed to detect the alphabet. If err is not nil, or start itself fails, start closes the Reader and
// returns the error.
func (r *Reader) start(src *source, err error) error {
	if err != nil {
		err = &FormatError{File: r.name, Msg: err.Error(), Err: err}
	} else {
		r.connect(src)
		err = r.readAhead()
	}
	if err != nil {
		r.Close()
	}
	return err
}

func (r *Reader) connect(src *source) {
	r.source = src
	r.parser = newParser(src, r.name)
	if p := r.options.Part; p.isCut() {
		r.parser.mayBeEmpty, r.parser.begun = true, p.From > 0
	}
	r.parser.goOn = r.options.OnBad == BadSkip
	if r.options.Longest.Letters > 0 {
		r.parser.limit = r.options.Longest
	}
	r.ids = newIDSet()
}

// readAhead reads the first records and decides the alphabet. It returns an error if the first record cannot be read,
// if the records are of both alphabets, or if they do not reveal the alphabet.
func (r *Reader) readAhead() error {
	part := !r.options.Part.IsZero()
	given := r.options.Alphabet != Unknown || part
	limit := detectRecords
	if given {
		limit = 1
	}
	var votes ballot
	for size := 0; len(r.pending) < limit && votes.total.letters() < detectLetters && size < maxAhead; {
		raw, err := r.parser.next()
		if err != nil {
			r.ahead = err
			break
		}
		r.pending = append(r.pending, raw)
		size += len(raw.letters)
		if r.parser.fastq {
			break
		}
		if given || raw.header == "" || raw.tooLong { // a given alphabet needs no evidence; a bad record is no evidence
			continue
		}
		if a := votes.add(raw.letters); a != Unknown && votes.sure[DNA]*votes.sure[Protein] > 0 {
			return r.otherAlphabet(raw, a)
		}
	}
	switch {
	case len(r.pending) == 0 && !(part && r.ahead == io.EOF):
		return r.ahead
	case part:
		r.decision = r.options.Part.decision
	case given:
		r.decision.Alphabet = r.options.Alphabet
	case r.parser.fastq:
		r.decision.Finding = Finding{Alphabet: DNA, Why: BecauseFASTQ}
	default:
		r.decision = votes.decide(r.name)
	}
	if r.Alphabet() == Unknown {
		if r.ahead != nil && r.ahead != io.EOF {
			return r.ahead // damage, say, which a given alphabet would not mend
		}
		return &FormatError{File: r.name, Err: ErrAlphabet,
			Msg: r.decision.evidence() + " cannot tell whether this is DNA or protein"}
	}
	r.clean = newCleaner(r.Alphabet(), r.options, r.parser.fastq)
	return nil
}

// Finding returns the alphabet of the input. If the alphabet was detected, Finding also returns the reason for it, and
// the extension of the file if the extension contradicts the alphabet.
func (r *Reader) Finding() Finding { return r.decision.Finding }

// Alphabet returns the alphabet, given or detected. It is never Unknown.
func (r *Reader) Alphabet() Alphabet { return r.decision.Alphabet }

// otherAlphabet returns the error for a record of the alphabet a that follows records of the other alphabet.
func (r *Reader) otherAlphabet(raw rawRecord, a Alphabet) error {
	id, _ := splitHeader(raw.header)
	return formatError(r, Record{ID: id, Line: raw.line}, ErrAlphabet,
		fmt.Sprintf("this record looks like %s, and others before it like %s", a, DNA+Protein-a))
}

// Read returns the next record, or io.EOF after the last. Any other error is a FormatError; if a read of the input
// failed, the FormatError wraps the error of that read. Every error is final: later calls return it again. After Close,
// Read returns an error that wraps os.ErrClosed, or the error that it has returned before.
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

// next reads the next record. It returns false if the record is left out.
func (r *Reader) next() (Record, bool, error) {
	raw, err := r.nextRaw()
	if err != nil {
		return Record{}, false, err
	}
	record := Record{Line: raw.line, Index: r.index}
	r.index++
	if !r.options.Part.has(record.Index) {
		r.others++
		return Record{}, false, nil
	}
	record.ID, record.Description = splitHeader(raw.header)
	if record.ID == "" {
		return r.bad(record, ReasonNoID, ErrBadRecord, "a header without an id")
	}
	if raw.tooLong {
		return r.bad(record, ReasonTooLong, ErrLongRecord, r.parser.limit.String())
	}
	if a := r.decision.contradicted(raw.letters); a != Unknown {
		return Record{}, false, r.otherAlphabet(raw, a)
	}
	if record.Seq, err = r.clean.clean(raw.letters); err != nil {
		return r.badLetter(record, raw.letters, err.(illegalLetter))
	}
	if len(record.Seq) == 0 {
		return r.bad(record, ReasonEmpty, ErrBadRecord, "no sequence")
	}
	if len(record.Seq) < r.options.MinLength {
		r.skip(record, ReasonTooShort, fmt.Sprintf("%d letters, fewer than %d", len(record.Seq), r.options.MinLength))
		return Record{}, false, nil
	}
	switch r.options.Duplicates {
	case DuplicateSuffix:
		record.ID = r.ids.unique(record.ID)
	case DuplicateError:
		if earlier, ok := r.ids.claim(record.ID, record.Line); !ok {
			return r.fault(record, ErrDuplicateID, fmt.Sprintf("the record on line %d has the same id", earlier))
		}
	}
	return record, true, nil
}

// nextRaw returns the next record before its letters are checked.
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

// badLetter calls bad for a record with an illegal letter. A record that consists only of gaps is reported as empty,
// because it has no letters even if gaps are removed.
func (r *Reader) badLetter(record Record, letters []byte, illegal illegalLetter) (Record, bool, error) {
	switch {
	case illegal.gap() && onlyGaps(letters):
		return r.bad(record, ReasonEmpty, ErrBadRecord, "no sequence, only gaps")
	case illegal.gap():
		return r.bad(record, ReasonGap, ErrGap, illegal.Error())
	}
	kind, why := ErrBadRecord, ""
	if b := illegal.letter | 0x20; 'a' <= b && b <= 'z' || illegal.letter == '*' { // may be legal in the other alphabet
		if why = r.decision.reminder(); why != "" {
			kind = ErrGuessed
		}
	}
	return r.bad(record, ReasonIllegalLetter, kind, illegal.Error()+why)
}

// bad handles a bad record. Under BadSkip it leaves the record out, and under BadError it calls fault.
func (r *Reader) bad(record Record, reason string, kind error, detail string) (Record, bool, error) {
	if r.options.OnBad == BadSkip {
		r.skip(record, reason, detail)
		return Record{}, false, nil
	}
	return r.fault(record, kind, detail)
}

// fault returns the error for a record, which ends the reading. If r.faults is not nil, fault instead adds the error to
// r.faults and leaves the record out.
func (r *Reader) fault(record Record, kind error, msg string) (Record, bool, error) {
	err := formatError(r, record, kind, msg)
	if r.faults == nil {
		return Record{}, false, err
	}
	r.faults.add(err)
	return Record{}, false, nil
}

func (r *Reader) skip(record Record, reason, detail string) {
	r.skipped.add(Skip{ID: record.ID, Line: record.Line, Reason: reason, Detail: detail})
}

func formatError(r *Reader, record Record, kind error, msg string) error {
	return &FormatError{File: r.name, Record: record.ID, Line: record.Line, Msg: msg, Err: kind}
}

// SkipCounts returns the number of records left out so far, by reason.
func (r *Reader) SkipCounts() map[string]int64 {
	counts := make(map[string]int64, len(r.skipped.counts))
	maps.Copy(counts, r.skipped.counts)
	return counts
}

// Skipped returns the first 20 records left out for each reason, in input order.
func (r *Reader) Skipped() []Skip { return slices.Clone(r.skipped.examples) }

// Records returns the number of records read so far, including those left out. Records outside Options.Part do not
// count.
func (r *Reader) Records() int64 { return r.index - r.others }

// CutShort reports whether the file is compressed by bgzip and lacks the empty block at its end, by which bgzip shows
// that a file is complete. It must be called after Read has returned io.EOF. For a part of a file that does not reach
// the end of the file it is false.
func (r *Reader) CutShort() bool { return r.source.cutShort() }

// Position returns approximately how many bytes of the stored, possibly compressed input have been read for the records
// so far. It includes records that were read to detect the alphabet.
func (r *Reader) Position() int64 { return r.source.position(len(r.parser.rest)) }

// Digest returns the SHA-256, in hexadecimal, and the size in bytes of the input before decompression. Until Read has
// returned io.EOF, Digest returns an error that wraps ErrNotRead.
func (r *Reader) Digest() (sum string, size int64, err error) {
	if !r.finished {
		return "", 0, fmt.Errorf("%s: %w", r.name, ErrNotRead)
	}
	sum, size = r.source.disk.digest()
	return sum, size, nil
}

// Close frees the memory of the reader and closes a file that Open opened. It may be called twice.
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
