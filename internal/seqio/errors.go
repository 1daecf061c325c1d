package seqio

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kinds of errors, for errors.Is.
var (
	// ErrNotSequences means that the input is neither FASTA nor FASTQ, or it is a folder.
	ErrNotSequences = errors.New("not FASTA or FASTQ")
	// ErrNoRecords means that the input is empty, or contains only white space.
	ErrNoRecords = errors.New("no records")
	// ErrAlphabet means that the records do not reveal the alphabet of the input, or they have both alphabets.
	ErrAlphabet = errors.New("neither DNA nor protein")
	// ErrTruncated means that the input ends inside a FASTQ record.
	ErrTruncated = errors.New("truncated FASTQ record")
	// ErrMalformed means that the lines of a FASTQ record do not fit together, or a header or "+" line is too long.
	ErrMalformed = errors.New("malformed record")
	// ErrDamaged means that the compressed input cannot be decompressed to its end, or other data follows its end.
	ErrDamaged = errors.New("damaged compressed data")
	// ErrLimit means that a record is too long, or the decompression of the input would take too much memory.
	ErrLimit = errors.New("beyond a limit")
	// ErrBadRecord means that a record has no id, no letters or an illegal letter, and the policy is BadError.
	ErrBadRecord = errors.New("bad record")
	// ErrGuessed is an ErrBadRecord for a letter or '*' in an input whose alphabet was detected, perhaps wrongly.
	ErrGuessed = fmt.Errorf("%w: guessed", ErrBadRecord)
	// ErrGap is an ErrBadRecord for a gap, which is an illegal letter under GapsError.
	ErrGap = fmt.Errorf("%w: a gap", ErrBadRecord)
	// ErrLongRecord means that a record has more letters than Options.Longest allows, and the policy is BadError.
	ErrLongRecord = fmt.Errorf("%w: a record", ErrLimit)
	// ErrDuplicateID means that two records have the same id, and the policy is DuplicateError.
	ErrDuplicateID = errors.New("duplicate id")
	// ErrInputName means that the outputs of two inputs would have the same name.
	ErrInputName = errors.New("inputs with the same name")
	// ErrGivenTwice means that a file is named twice, by its path or by a folder or glob that leads to it.
	ErrGivenTwice = errors.New("an input is given twice")
	// ErrNoInput means that a path, glob or folder leads to no file.
	ErrNoInput = errors.New("no such sequence input")
	// ErrNotRead means that Digest was called before Read returned io.EOF.
	ErrNotRead = errors.New("input not read to its end")
)

// FormatError is the error for a fault in an input. It names the file and, if they are known, the record and the line.
type FormatError struct {
	File   string // path, or the name given to NewReader
	Record string // id of the record concerned; empty when there is none
	Line   int64  // 1-based line of the record's header, or of the fault if there is no record; 0 if unknown
	Msg    string // one clause, complete without the text of Err
	Err    error  // one of the package's Err variables, or the error that caused the fault
}

// Error returns "file:line: record "id": msg", without the parts that are unknown.
func (e *FormatError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		b.WriteByte(':')
		b.WriteString(strconv.FormatInt(e.Line, 10))
	}
	b.WriteString(": ")
	if e.Record != "" {
		b.WriteString("record ")
		b.WriteString(strconv.Quote(shorten(e.Record)))
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }

// shorten returns s, or its first 80 bytes and "…" if it is longer, so that a message stays readable.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
