package seqio

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kinds of errors, for errors.Is.
var (
	ErrNotSequences = errors.New("not FASTA or FASTQ")        // the input is something else, or a folder
	ErrNoRecords    = errors.New("no records")                // the input is empty
	ErrAlphabet     = errors.New("neither DNA nor protein")   // the alphabet cannot be told, or the input has both
	ErrTruncated    = errors.New("truncated FASTQ record")    // the input ends inside a FASTQ record
	ErrMalformed    = errors.New("malformed record")          // a FASTQ record's lines do not fit together, or a header is too long
	ErrDamaged      = errors.New("damaged compressed data")   // the input does not decompress to its end
	ErrLimit        = errors.New("beyond a limit")            // a record is too long, or compressed data asks for too much memory
	ErrBadRecord    = errors.New("bad record")                // no id, no letters or an illegal letter, under BadError
	ErrGuessed      = fmt.Errorf("%w: guessed", ErrBadRecord) // illegal only in the alphabet that was detected
	ErrGap          = fmt.Errorf("%w: a gap", ErrBadRecord)   // an illegal letter that is a gap, under GapsError
	ErrLongRecord   = fmt.Errorf("%w: a record", ErrLimit)    // a record is longer than Options.Longest, under BadError
	ErrDuplicateID  = errors.New("duplicate id")              // an id came twice, under DuplicateError
	ErrInputName    = errors.New("inputs with the same name") // two inputs would be written to the same output
	ErrGivenTwice   = errors.New("an input is given twice")   // by its path twice, or by a path and by a folder or glob
	ErrNoInput      = errors.New("no such sequence input")    // a path, glob or folder that leads to no file
	ErrNotRead      = errors.New("input not read to its end") // Digest was called before Read returned io.EOF
)

// FormatError is a fault in the content of an input, with its place.
type FormatError struct {
	File   string // path, or the name given to NewReader
	Record string // id of the record concerned; empty when there is none
	Line   int64  // 1-based line of the record's header, or of the offending line if there is no record; 0 if unknown
	Msg    string // one clause, complete without the text of Err
	Err    error  // the kind of error, one of the package's Err variables, or the cause
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

// Unwrap returns the kind or the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// shorten returns the beginning of s, so that a message stays readable.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
