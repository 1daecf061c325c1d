package seqio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// parseAll returns the records of a text that is read in pieces of the given size. It also returns the error that ended
// the reading, or nil instead of io.EOF.
func parseAll(text string, piece int) (records []rawRecord, err error) {
	p := newParser(&piecewise{rest: []byte(text), size: piece}, "in")
	defer p.close()
	for {
		record, err := p.next()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		records = append(records, record)
	}
}

// rawSummary returns records as "line header|letters".
func rawSummary(records []rawRecord) []string {
	var s []string
	for _, r := range records {
		s = append(s, fmt.Sprintf("%d %s|%s", r.line, r.header, r.letters))
	}
	return s
}

// piecewise is a reader that returns at most size bytes of a text per read. Every other read returns no byte.
type piecewise struct {
	rest  []byte
	size  int
	empty bool
}

func (r *piecewise) Read(p []byte) (int, error) {
	if r.empty = !r.empty; r.empty {
		return 0, nil
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:min(r.size, len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

// reference parses a whole text line by line, as the comment of parser specifies. If it refuses the text, it returns
// the kind of error, and the record and the line that the parser's error must name.
func reference(text string) (records []rawRecord, record string, line int64, kind error) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	bare := func(i int) string { return strings.TrimSuffix(lines[i], "\n") }
	mark := ""
	for i := 0; i < len(lines); {
		header := strings.TrimLeft(bare(i), " \t\v\f")
		if header == "" {
			i++
			continue
		}
		if mark == "" {
			mark = header[:1]
			if mark != ">" && mark != "@" {
				return nil, "", int64(i + 1), ErrNotSequences
			}
		}
		if !strings.HasPrefix(header, mark) {
			return records, record, line, ErrMalformed
		}
		record, _ = splitHeader(header[1:])
		line = int64(i + 1)
		i++
		switch first := len(records) == 0; {
		case first && isUTF16([]byte(header[1:])):
			return nil, "", line, ErrNotSequences
		case first && mark == "@" && isSAM([]byte(header[1:])):
			return nil, "", line, ErrNotSequences
		case first && mark == ">" && isPIR([]byte(header[1:])):
			return nil, record, line, ErrNotSequences
		}
		var letters strings.Builder
		for i < len(lines) && (mark == ">" && lines[i][0] != '>' || mark == "@" && lines[i][0] != '+') {
			if mark == "@" && lines[i][0] == '@' {
				return records, record, line, ErrMalformed
			}
			letters.WriteString(bare(i))
			i++
		}
		if mark == "@" {
			if i == len(lines) || bare(i) == lines[i] {
				return records, record, line, ErrTruncated
			}
			plus := bare(i)[1:]
			if id, _ := splitHeader(plus); plus != header[1:] && id != "" && id != record {
				return records, record, line, ErrMalformed
			}
			i++
			values := 0
			for values < letters.Len() {
				if i == len(lines) {
					return records, record, line, ErrTruncated
				}
				values += len(bare(i))
				i++
			}
			if values > letters.Len() {
				return records, record, line, ErrMalformed
			}
		}
		records = append(records, rawRecord{header: header[1:], letters: []byte(letters.String()), line: line})
	}
	if mark == "" {
		return nil, "", 0, ErrNoRecords
	}
	return records, "", 0, nil
}

// FuzzParser checks that the parser returns the same records and the same kind of error as the plain function
// reference, in whatever pieces the text arrives.
func FuzzParser(f *testing.F) {
	for _, text := range []string{
		"", "\n \r\n\t", ">", "@", ">\n>", "\n@\n@", "ACGT", "<html>\n",
		">a\nACGT\n>b\n\n>c x\nAC GT\r\n", " \t>a\r\rAC\r>b", ">a\n@x\n+\n;\n >b\n",
		"@a\nACGT\n+\n@III\n@b\nGG\n+\nI", "@\n\n+\n\n@\nA\n+\nI",
		"@a\nAC\nGT\n+a\n@I\n\n@I\n\n  @b\nG\n+\n+", "@a\nAC\n+", "@a\nAC\n+\n",
		"@a\nAC\n+\nIII\n@b\nAC\n+\nII\n", "@a\nAC\n+\nII\n>b\nAC\n",
		"@a\nAC\n+b\nII\n", "@a x\nAC\n+a y\nII\n@\nAC\n+x\nII\n", "@SQ\tSN:1\nr\t0\n", ">P1;x\ntitle\nMK*\n", ">a\nA\n>P1;x\nA\n",
		"@a\nAC\n@b\nAC\n+\nII\n", "@a b\nAC\n+\nI\nI\n@c\n\n+\n@d\n",
	} {
		f.Add([]byte(text), uint8(0))
		f.Add([]byte(text), uint8(4))
		f.Add([]byte(text), uint8(255))
	}
	f.Fuzz(func(t *testing.T, input []byte, piece uint8) {
		if len(input) >= maxHeader {
			t.Skip("it could hold a header that is refused")
		}
		got, err := parseAll(string(input), 1+int(piece))
		want, record, line, kind := reference(string(input))
		if got, want := rawSummary(got), rawSummary(want); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: parsed %q, want %q", input, got, want)
		}
		var where *FormatError
		switch {
		case kind == nil && err != nil:
			t.Errorf("%q: error %v", input, err)
		case kind != nil && (!errors.As(err, &where) || !errors.Is(err, kind)):
			t.Errorf("%q: error %v, want %v", input, err, kind)
		case kind != nil && (where.Record != record || where.Line != line):
			t.Errorf("%q: error %v, want %v at record %q on line %d", input, err, kind, record, line)
		}
	})
}

// TestFailingSourceIsNamedWithTheRecord checks that a parser whose source fails returns all complete records, and then
// an error with the record in which the source has failed.
func TestFailingSourceIsNamedWithTheRecord(t *testing.T) {
	broken := errors.New("the disk is gone")
	for _, text := range []string{">a x\nACGT\nAC\n>b\nGG\n", "@a x\nAC\nGT\n+\nII\nII\n@b\nGG\n+\n@@\n"} {
		whole, err := parseAll(text, len(text))
		if err != nil {
			t.Fatal(err)
		}
		for cut := range len(text) + 1 {
			p := newParser(io.MultiReader(bytes.NewReader([]byte(text[:cut])), iotest.ErrReader(broken)), "in")
			var got []rawRecord
			var record rawRecord
			for err = nil; err == nil; {
				if record, err = p.next(); err == nil {
					got = append(got, record)
				}
			}
			var where *FormatError
			complete := rawSummary(got)
			if !errors.Is(err, broken) || !errors.As(err, &where) ||
				len(got) > len(whole) || !reflect.DeepEqual(complete, rawSummary(whole[:len(got)])) {
				t.Fatalf("%q: %d records and error %v", text[:cut], len(got), err)
			}
			// If the source fails within a record, the error names the line of the record's header. If it fails after a
			// complete record, the error names the current line.
			want := int64(0)
			if cut > 0 {
				want = 1 + int64(strings.Count(text[:cut], "\n"))
			}
			for _, r := range whole {
				if id, _ := splitHeader(r.header); where.Record == id {
					want = r.line
				}
			}
			if where.Line != want {
				t.Errorf("%q: record %q on line %d, want line %d", text[:cut], where.Record, where.Line, want)
			}
		}
	}
}
