package seqio

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

const (
	maxHeader  = 1 << 20 // a longer header line is no header
	headerKept = 256     // bytes of a header that an error message may need
)

// mark is what the watcher knows of a record that it has seen from beginning to end.
type mark struct {
	line    int64 // 1-based line of the header
	letters int64 // bytes in the sequence's lines
	unnamed bool  // nothing at all follows the '>' or '@'
}

// watcher is the stream that fastx parses, seen line by line on its way there. It knows what fastx does not tell: the
// line of every record, and whether the input ends inside one. It checks the frame of FASTQ records (fastx accepts some
// that are cut), and eases fastx's work without changing what it reads: line ends become "\n", white space before a
// header becomes line ends, and a quality line's first '@', which fastx can only tell from a header by parsing the
// record anew at each, becomes another letter.
//
// To fastx every end is a clean one: after the last complete record err holds io.EOF or the reason to stop there.
type watcher struct {
	src   io.Reader
	name  string
	ends  newlines
	state lineKind
	start bool // the next byte is the first of its line
	fastq bool

	line    int64  // 1-based number of the current line
	header  []byte // first bytes of the current record's header
	length  int64  // bytes of the header so far
	letters int64  // in the current record's sequence lines
	quality int64  // in its quality lines
	open    mark   // the current record

	done []mark // complete records that were not taken yet, oldest first
	err  error
}

// lineKind is what the current line belongs to.
type lineKind uint8

const (
	between      lineKind = iota // before the first record, or after a FASTQ record
	headerLine                   // after '>' or '@'
	sequenceLine                 // letters
	plusLine                     // FASTQ: '+' and whatever follows
	qualityLine                  // FASTQ: as many values as letters
)

func newWatcher(src io.Reader, name string) *watcher {
	return &watcher{src: src, name: name, start: true, line: 1}
}

// Read passes the next bytes on.
func (w *watcher) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for range maxEmptyReads {
		if w.err != nil {
			return 0, io.EOF
		}
		n, err := w.src.Read(p)
		n = w.scan(p[:w.ends.normalise(p[:n])])
		if err != nil && w.err == nil {
			w.finish(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	w.finish(io.ErrNoProgress)
	return 0, io.EOF
}

// take returns the mark of the oldest complete record that was not taken yet.
func (w *watcher) take() (mark, bool) {
	if len(w.done) == 0 {
		return mark{}, false
	}
	m := w.done[0]
	w.done = w.done[1:]
	return m, true
}

// ended reports that the last complete record was taken and no other will come.
func (w *watcher) ended() bool { return w.err != nil && len(w.done) == 0 }

// scan follows the lines of p and returns how many of its bytes may be passed on: all, or those before a fault.
func (w *watcher) scan(p []byte) int {
	for i := 0; i < len(p); {
		if w.state == between {
			i += w.skipBlank(p[i:])
			if i == len(p) {
				break
			}
			if !w.openRecord(p[i:]) {
				return i
			}
		} else if w.start && !w.beginLine(p[i:]) {
			return i
		}
		w.start = false

		piece, whole := p[i:], false
		if end := bytes.IndexByte(piece, '\n'); end >= 0 {
			piece, whole = piece[:end], true
		}
		if !w.within(piece) {
			return i
		}
		i += len(piece)
		if whole {
			if !w.endLine() {
				return i
			}
			i++
			w.line++
			w.start = true
		}
	}
	return len(p)
}

// skipBlank makes line ends of the white space at the beginning of p and returns its length.
func (w *watcher) skipBlank(p []byte) int {
	for i, b := range p {
		switch b {
		case '\n':
			w.line++
		case ' ', '\t', '\v', '\f':
			p[i] = '\n'
		default:
			return i
		}
	}
	return len(p)
}

// openRecord begins a record at p, whose first byte must mark a header. The first header decides the format.
func (w *watcher) openRecord(p []byte) bool {
	first := w.open.line == 0
	switch {
	case first && p[0] != '>' && p[0] != '@':
		return w.fault("", w.line, ErrNotSequences, "this is not FASTA or FASTQ: it starts with %q and looks like %s",
			beginning(p), http.DetectContentType(p))
	case first:
		w.fastq = p[0] == '@'
	case w.fastq && p[0] != '@':
		return w.fault(w.recordID(), w.open.line, ErrMalformed,
			"line %d, after this record, should begin with \"@\", not %q; are there more quality values than letters?",
			w.line, p[:1])
	}
	w.state = headerLine
	w.open = mark{line: w.line}
	w.header = w.header[:0]
	w.length, w.letters, w.quality = 0, 0, 0
	return true
}

// closeRecord ends the current record, which is complete.
func (w *watcher) closeRecord() {
	w.open.letters = w.letters
	w.open.unnamed = w.length <= 1
	w.done = append(w.done, w.open)
	w.state = between
}

// beginLine decides from its first byte what a line inside a record belongs to.
func (w *watcher) beginLine(p []byte) bool {
	switch {
	case !w.fastq && p[0] == '>':
		w.closeRecord()
		return w.openRecord(p)
	case w.fastq && w.state == sequenceLine && p[0] == '+':
		w.state = plusLine
	case w.fastq && w.state == sequenceLine && p[0] == '@':
		return w.fault(w.recordID(), w.open.line, ErrMalformed, "line %d begins a new record before this one had its \"+\" line", w.line)
	case w.state == qualityLine && p[0] == '@':
		p[0] = 'A'
	}
	return true
}

// within counts a piece of the current line.
func (w *watcher) within(piece []byte) bool {
	n := int64(len(piece))
	switch w.state {
	case headerLine:
		w.length += n
		if w.length > maxHeader {
			return w.fault(w.recordID(), w.open.line, ErrMalformed, "the header line is longer than %d bytes", maxHeader)
		}
		w.header = append(w.header, piece[:min(len(piece), headerKept-len(w.header))]...)
	case sequenceLine:
		w.letters += n
	case qualityLine:
		w.quality += n
	}
	return true
}

// endLine decides what follows a line that is complete.
func (w *watcher) endLine() bool {
	switch w.state {
	case headerLine:
		w.state = sequenceLine
	case plusLine:
		w.state = qualityLine
		return w.weighQuality()
	case qualityLine:
		return w.weighQuality()
	}
	return true
}

// weighQuality closes a FASTQ record that has as many quality values as letters.
func (w *watcher) weighQuality() bool {
	switch {
	case w.quality > w.letters:
		return w.fault(w.recordID(), w.open.line, ErrMalformed, "%d quality values for %d letters (up to line %d)", w.quality, w.letters, w.line)
	case w.quality == w.letters:
		w.closeRecord()
	}
	return true
}

// finish ends the stream, cleanly where err is io.EOF.
func (w *watcher) finish(err error) {
	switch {
	case err != io.EOF:
		if w.state == between {
			w.fault("", w.line, err, "%v", err)
		} else {
			w.fault(w.recordID(), w.open.line, err, "%v", err)
		}
		return
	case w.open.line == 0:
		w.fault("", 0, ErrNoRecords, "the input holds no records")
		return
	case w.fastq && w.state == qualityLine && !w.weighQuality():
		return
	case w.fastq && w.state == qualityLine:
		w.fault(w.recordID(), w.open.line, ErrTruncated,
			"the input ends inside this record, after %d quality values for %d letters", w.quality, w.letters)
		return
	case w.fastq && w.state != between:
		w.fault(w.recordID(), w.open.line, ErrTruncated, "the input ends inside this record, before its quality line")
		return
	case !w.fastq:
		w.closeRecord()
	}
	w.err = io.EOF
}

// fault ends the stream with a FormatError. It returns false for its callers to pass on.
func (w *watcher) fault(id string, line int64, kind error, format string, args ...any) bool {
	w.err = &FormatError{File: w.name, Record: id, Line: line, Msg: fmt.Sprintf(format, args...), Err: kind}
	return false
}

func (w *watcher) recordID() string {
	if len(w.header) == 0 {
		return ""
	}
	id, _ := splitHeader(string(w.header[1:]))
	return id
}

// beginning is what a message shows of a line.
func beginning(p []byte) string {
	if end := bytes.IndexByte(p, '\n'); end >= 0 {
		p = p[:end]
	}
	return string(p[:min(len(p), 20)])
}

// splitHeader returns the first word of a header line, without its '>' or '@', and the rest, trimmed.
func splitHeader(header string) (id, description string) {
	header = strings.TrimSpace(strings.ToValidUTF8(header, "\uFFFD"))
	end := strings.IndexFunc(header, unicode.IsSpace)
	if end < 0 {
		return header, ""
	}
	return header[:end], strings.TrimSpace(header[end:])
}
