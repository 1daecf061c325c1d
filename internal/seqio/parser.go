package seqio

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxHeader     = 1 << 20 // maximum number of bytes of a header line or a "+" line
	maxEmptyReads = 100     // reading fails when this number of reads in a row return neither bytes nor an error
)

// parser reads FASTA and FASTQ records from a stream, once, from front to back. It checks the structure of the records,
// not their letters. In a FASTQ record, the letters and the quality values may each extend over several lines. The
// record ends with the line after which it has a quality value for every letter. A line of quality values may therefore
// begin with '@'.
type parser struct {
	src  io.Reader
	name string // name of the input in errors
	ends newlines
	buf  *chunk // memory for the bytes that the last read of src returned
	rest []byte // the part of buf that has not been parsed yet
	err  error  // the error with which src ended, or nil

	line       int64 // 1-based number of the line in which rest begins; 0 before the first byte
	fastq      bool
	opened     int64  // line of the current record's header; 0 before the first record
	begun      bool   // the first header was read and is not one of PIR or SAM, or an earlier part of the file has it
	mayBeEmpty bool   // whether an input without records is allowed
	header     []byte // header of the current record, without its '>' or '@'
	plus       []byte // the line between letters and quality values, with its '+'
	letters    chunks // letters of the current record, unless there are too many
	count      int    // number of letters of the current record
	limit      Limit  // maximum number of letters in a record
	goOn       bool   // whether next returns a record that is too long, without its letters, instead of an error
}

// rawRecord is a record before its letters are checked. It belongs to the caller.
type rawRecord struct {
	header  string // without '>' or '@'
	letters []byte // its sequence lines, joined; empty if it is too long
	line    int64  // line of the header
	tooLong bool
}

func newParser(src io.Reader, name string) *parser {
	return &parser{src: src, name: name, buf: newChunk(), limit: Limit{Letters: MaxLetters}}
}

// close frees the memory of p, which other parsers may then use. p must not be used any more.
func (p *parser) close() {
	if p.buf == nil {
		return
	}
	p.buf.free()
	p.letters.empty(0)
	p.buf, p.rest = nil, nil
}

// next returns the next record, io.EOF after the last, or a FormatError. Every error is final.
func (p *parser) next() (rawRecord, error) {
	if err := p.open(); err != nil {
		return rawRecord{}, err
	}
	read := p.readFASTA
	if p.fastq {
		read = p.readFASTQ
	}
	if err := read(); err != nil {
		return rawRecord{}, err
	}
	return rawRecord{header: string(p.header), letters: p.letters.take(), line: p.opened, tooLong: p.count > p.limit.Letters}, nil
}

// open finds the next record and skips the '>' or '@' at its beginning. In the first record of the input this character
// determines the format.
func (p *parser) open() error {
	p.skipBlank()
	first := p.opened == 0
	switch {
	case !p.more() && p.err != io.EOF:
		return p.fault("", p.line, p.err, "%v", p.err)
	case !p.more() && first && !p.mayBeEmpty:
		return p.fault("", 0, ErrNoRecords, "the input holds no records")
	case !p.more():
		return io.EOF
	case first && p.rest[0] != '>' && p.rest[0] != '@':
		return p.foreign(p.beginning())
	case first:
		p.fastq = p.rest[0] == '@'
	case p.fastq && p.rest[0] != '@':
		return p.fault(p.id(), p.opened, ErrMalformed,
			"line %d, after this record, should begin with \"@\", not %q; are there more quality values than letters?",
			p.line, p.rest[:1])
	}
	p.rest = p.rest[1:]
	p.opened = p.line
	p.header = p.header[:0]
	p.count = 0
	return nil
}

// skipBlank skips white space before a record: at the beginning of the input, or after a FASTQ record. After a FASTA
// record there is none to skip, because readFASTA has read it as lines of that record.
func (p *parser) skipBlank() {
	for p.more() {
		switch p.rest[0] {
		case '\n':
			p.line++
		case ' ', '\t', '\v', '\f':
		default:
			return
		}
		p.rest = p.rest[1:]
	}
}

// readFASTA reads a record up to the '>' of the next record or the end of the input. A record may have no letters.
func (p *parser) readFASTA() error {
	if err := p.readHeader(); err != nil {
		return err
	}
	if !p.begun && isPIR(p.header) {
		return p.fault(p.id(), p.opened, ErrNotSequences,
			"this is PIR (NBRF), not FASTA: its headers begin with a code and \";\"")
	}
	p.begun = true
	for p.more() && p.rest[0] != '>' {
		if p.readLine(p.addLetters); p.ended() {
			return p.tooLong()
		}
	}
	if !p.more() && p.err != io.EOF {
		return p.cut("")
	}
	return nil
}

// readFASTQ reads a record up to the end of the line with its last quality value.
func (p *parser) readFASTQ() error {
	if err := p.readHeader(); err != nil {
		return err
	}
	if !p.begun && isSAM(p.header) {
		return p.fault("", p.opened, ErrNotSequences, "this is SAM, not FASTQ")
	}
	p.begun = true
	for p.more() && p.rest[0] != '+' {
		if p.rest[0] == '@' {
			return p.fault(p.id(), p.opened, ErrMalformed,
				"line %d begins a new record before this one had its \"+\" line", p.line)
		}
		if p.readLine(p.addLetters); p.ended() {
			return p.tooLong()
		}
	}
	if err := p.readPlus(); err != nil {
		return err
	}
	letters, quality := p.count, 0
	for quality < letters {
		if !p.more() {
			return p.cut(fmt.Sprintf("after %d quality values for %d letters", quality, letters))
		}
		line := p.line
		if whole := p.readLine(func(part []byte) { quality += len(part) }); !whole && p.err != io.EOF {
			return p.cut("")
		}
		if quality > letters {
			return p.fault(p.id(), p.opened, ErrMalformed,
				"%d quality values for %d letters (up to line %d)", quality, letters, line)
		}
	}
	return nil
}

// readPlus reads the line between the letters and the quality values. After its '+' the line must be blank, or its
// first word must be the id of the record.
func (p *parser) readPlus() error {
	if p.more() && len(p.rest) > 1 && p.rest[1] == '\n' { // the usual line, which contains only a '+'
		p.rest = p.rest[2:]
		p.line++
		return nil
	}
	whole := false
	p.plus = p.plus[:0]
	for !whole && p.more() {
		var part []byte
		if part, whole = p.part(); len(p.plus)+len(part) > maxHeader {
			return p.fault(p.id(), p.opened, ErrMalformed, "its \"+\" line is longer than %d bytes", maxHeader)
		}
		p.plus = append(p.plus, part...)
	}
	if !whole {
		return p.cut("before its quality line")
	}
	if id, _ := splitHeader(string(p.plus[1:])); !bytes.Equal(p.plus[1:], p.header) && id != "" && id != p.id() {
		return p.fault(p.id(), p.opened, ErrMalformed,
			"its \"+\" line, line %d, names another read: %q", p.line-1, shorten(id))
	}
	return nil
}

// readHeader reads the rest of the header line. The input may end before the newline. It returns an error if the first
// header is text in UTF-16.
func (p *parser) readHeader() error {
	for p.more() {
		part, whole := p.part()
		if len(">")+len(p.header)+len(part) > maxHeader {
			return p.fault(p.id(), p.opened, ErrMalformed, "the header line is longer than %d bytes", maxHeader)
		}
		p.header = append(p.header, part...)
		if whole {
			break
		}
	}
	if !p.begun && isUTF16(p.header) {
		return p.fault("", p.opened, ErrNotSequences, utf16)
	}
	return nil
}

// readLine reads the rest of the current line and passes it to the function add in pieces. It reports whether it has
// reached the newline. It stops earlier if the record becomes too long and the reading must end with this record (see
// ended).
func (p *parser) readLine(add func(part []byte)) bool {
	for p.more() {
		part, whole := p.part()
		add(part)
		if whole || p.ended() {
			return whole
		}
	}
	return false
}

// addLetters collects and counts letters of the current record. If the record is too long, addLetters counts its
// letters but keeps none.
func (p *parser) addLetters(part []byte) {
	if p.count += len(part); p.count <= p.limit.Letters {
		p.letters.add(part)
	} else {
		p.letters.empty(1)
	}
}

// ended reports whether the current record is too long and the reading must end with it, because goOn is not set.
func (p *parser) ended() bool { return p.count > p.limit.Letters && !p.goOn }

func (p *parser) tooLong() error {
	return p.fault(p.id(), p.opened, ErrLongRecord, "%v", p.limit)
}

// part returns the part of the current line that is in the buffer. whole reports whether it includes the end of the
// line.
func (p *parser) part() (part []byte, whole bool) {
	part = p.rest
	end := bytes.IndexByte(part, '\n')
	if end < 0 {
		p.rest = nil
		return part, false
	}
	p.rest = part[end+1:]
	p.line++
	return part[:end], true
}

// more reports whether p.rest has bytes. If p.rest is empty, more first reads from the input. If it returns false,
// p.err is the reason.
func (p *parser) more() bool {
	for reads := 0; len(p.rest) == 0 && p.err == nil; reads++ {
		if reads == maxEmptyReads {
			p.err = io.ErrNoProgress
			break
		}
		var n int
		n, p.err = p.src.Read(p.buf[:])
		p.rest = p.buf[:p.ends.normalise(p.buf[:n])]
	}
	if p.line == 0 && len(p.rest) > 0 {
		p.line = 1
	}
	return len(p.rest) > 0
}

// cut returns the error for an input that ends, or cannot be read, inside the current record. If the input ends, the
// message closes with the text where, such as "before its quality line".
func (p *parser) cut(where string) error {
	if p.err != io.EOF {
		return p.fault(p.id(), p.opened, p.err, "%v", p.err)
	}
	return p.fault(p.id(), p.opened, ErrTruncated, "the input ends inside this record, %s", where)
}

func (p *parser) fault(id string, line int64, kind error, format string, args ...any) error {
	return &FormatError{File: p.name, Record: id, Line: line, Msg: fmt.Sprintf(format, args...), Err: kind}
}

// id returns the id of the current record.
func (p *parser) id() string {
	id, _ := splitHeader(string(p.header))
	return id
}

// beginning removes up to 20 bytes of the current line from p.rest and returns them, without the newline, for a
// message.
func (p *parser) beginning() []byte {
	const most = 20
	var start []byte
	for len(start) < most && p.more() && p.rest[0] != '\n' {
		start = append(start, p.rest[0])
		p.rest = p.rest[1:]
	}
	return start
}

// splitHeader divides a header, without its '>' or '@', into the first word and the rest without surrounding white
// space. A header that is not UTF-8 is decoded as Latin-1.
func splitHeader(header string) (id, description string) {
	if !utf8.ValidString(header) {
		header = fromLatin1(header)
	}
	header = strings.TrimSpace(header)
	for end, b := range []byte(header) {
		if b >= utf8.RuneSelf {
			break
		}
		if b == ' ' || '\t' <= b && b <= '\r' {
			return header[:end], strings.TrimSpace(header[end:])
		}
	}
	end := strings.IndexFunc(header, unicode.IsSpace)
	if end < 0 {
		return header, ""
	}
	return header[:end], strings.TrimSpace(header[end:])
}

// fromLatin1 decodes text in Latin-1, in which each byte is the number of its character.
func fromLatin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}
