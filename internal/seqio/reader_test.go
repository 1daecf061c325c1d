package seqio

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

// readAll returns the records of an input and its Reader. It also returns the error that ended the reading, or nil
// instead of io.EOF.
func readAll(input io.Reader, o Options) ([]Record, *Reader, error) {
	r, err := NewReader(input, "in", o)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	var records []Record
	for {
		record, err := r.Read()
		if err == io.EOF {
			return records, r, nil
		}
		if err != nil {
			return records, r, err
		}
		records = append(records, record)
	}
}

// summary returns records as "line index id|description|letters".
func summary(records []Record) []string {
	var s []string
	for _, r := range records {
		s = append(s, fmt.Sprintf("%d %d %s|%s|%s", r.Line, r.Index, r.ID, r.Description, r.Seq))
	}
	return s
}

func TestReadsBothFormats(t *testing.T) {
	tests := []struct {
		name, input string
		options     Options
		format      string
		alphabet    Alphabet
		want        []string
	}{
		{"fasta", ">a one two\nACGT\nAC\n>b\nGG\n", Options{}, "FASTA", DNA, []string{"1 0 a|one two|ACGTAC", "4 1 b||GG"}},
		{"no final newline", ">a\nACGT\n>b\nGG", Options{}, "FASTA", DNA, []string{"1 0 a||ACGT", "3 1 b||GG"}},
		{"blank lines", "\n \n\t\n>a\n\nAC\n\n\nGT\n\n>b\nG\n\n", Options{}, "FASTA", DNA, []string{"4 0 a||ACGT", "11 1 b||G"}},
		{"windows lines", "\r\n>a d\r\nAC\r\nGT\r\n\r\n>b\r\nGG\r\n", Options{}, "FASTA", DNA, []string{"2 0 a|d|ACGT", "6 1 b||GG"}},
		{"old mac lines", ">a\rAC\rGT\r>b\rGG\r", Options{}, "FASTA", DNA, []string{"1 0 a||ACGT", "4 1 b||GG"}},
		{"doubled carriage returns", ">a\r\r\nACGT\r\r\n>b\r\r\nGG", Options{}, "FASTA", DNA, []string{"1 0 a||ACGT", "5 1 b||GG"}},
		{"byte order mark", "\ufeff>a\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a||ACGT"}},
		{"indented header", "  >a\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a||ACGT"}},
		{"space before the id", "> a b\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a|b|ACGT"}},
		{"tabs in the header", ">a\tx\ty\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a|x\ty|ACGT"}},
		{"header marks inside a header", ">a >b @c\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a|>b @c|ACGT"}},
		{"header that is not UTF-8", ">a\xe9 caf\xe9\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a\u00e9|caf\u00e9|ACGT"}},
		{"header in Latin-1 and one in UTF-8", ">a\xe9\nACGT\n>a\xc3\xa8 \xc3\xa9\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a\u00e9||ACGT", "3 1 a\u00e8|\u00e9|ACGT"}},
		{"Latin-1 ids that differ", ">caf\xe9\nACGT\n>caf\xe8\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 caf\u00e9||ACGT", "3 1 caf\u00e8||ACGT"}},
		{"Latin-1 with a no-break space", ">s6\xa0x\nACGT\n", Options{}, "FASTA", DNA, []string{"1 0 s6|x|ACGT"}},
		{"white space in a sequence", ">a\nAC GT\tAC \n T\v\fG\n", Options{}, "FASTA", DNA, []string{"1 0 a||ACGTACTG"}},
		{"lower case", ">a\nacgtun\n", Options{}, "FASTA", DNA, []string{"1 0 a||ACGTTN"}},
		{"lower case kept", ">a\nacGTuUn\n", Options{KeepCase: true}, "FASTA", DNA, []string{"1 0 a||acGTtTn"}},
		{"nucleotide codes", ">a\nACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTRYSWKMBDHV\n", Options{}, "FASTA", DNA,
			[]string{"1 0 a||ACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTRYSWKMBDHV"}},
		{"protein", ">a\nMKV\nLU*\n>b\nacgx.\n", Options{}, "FASTA", Protein, []string{"1 0 a||MKVLU", "4 1 b||ACGX"}},
		{"gaps removed", ">a\nMK-V\n..LU*\n>b\nac--gx.\n", Options{Gaps: GapsRemove}, "FASTA", Protein, []string{"1 0 a||MKVLU", "4 1 b||ACGX"}},
		{"gaps of DNA removed", ">a\n--ACGT\nAC..\n", Options{Gaps: GapsRemove}, "FASTA", DNA, []string{"1 0 a||ACGTAC"}},
		{"X in DNA", ">a\nACGTxxXXACGT\n", Options{}, "FASTA", DNA, []string{"1 0 a||ACGTNNNNACGT"}},
		{"bases that were not called", "@a\nAC.T\n+\nIIII\n", Options{}, "FASTQ", DNA, []string{"1 0 a||ACNT"}},
		{"protein case kept", ">a\nMkvu\n", Options{KeepCase: true}, "FASTA", Protein, []string{"1 0 a||Mkvu"}},
		{"stop before white space", ">a\nMKV *\n \n>b\nMM\n", Options{}, "FASTA", Protein, []string{"1 0 a||MKV", "4 1 b||MM"}},
		{"forced protein", ">a\nACGU\n", Options{Alphabet: Protein}, "FASTA", Protein, []string{"1 0 a||ACGU"}},
		{"fastq", "@a x\nACGT\n+\nIIII\n@b\nGG\n+b\nII\n", Options{}, "FASTQ", DNA, []string{"1 0 a|x|ACGT", "5 1 b||GG"}},
		{"fastq without final newline", "@a\nACGT\n+\nIIII", Options{}, "FASTQ", DNA, []string{"1 0 a||ACGT"}},
		{"fastq of windows", "@a\r\nACGT\r\n+\r\nIIII\r\n\r\n@b\r\nGG\r\n+\r\nII", Options{}, "FASTQ", DNA, []string{"1 0 a||ACGT", "6 1 b||GG"}},
		{"blank lines between reads", "\n@a\nACGT\n+\nIIII\n\n  \n@b\nGG\n+\nII\n\n", Options{}, "FASTQ", DNA, []string{"2 0 a||ACGT", "8 1 b||GG"}},
		{"quality that begins like a header", "@a\nACGT\n+\n@III\n@b\nGG\n+\n@@\n", Options{}, "FASTQ", DNA, []string{"1 0 a||ACGT", "5 1 b||GG"}},
		{"quality that looks like a record", "@a\nACGT\n+\n@b\nG\n@c\nG\n+\n>\n", Options{}, "FASTQ", DNA, nil},
		{"quality of marks", "@a\nACGT\n+\n>@+>\n@b\nGG\n+\n++\n@c\nC\n+\n>\n", Options{}, "FASTQ", DNA, []string{"1 0 a||ACGT", "5 1 b||GG", "9 2 c||C"}},
		{"several lines a read", "@a\nAC\nGT\n+a\n@I\n@I\n@b\nG\nG\n+\nI\n@\n", Options{}, "FASTQ", DNA, []string{"1 0 a||ACGT", "7 1 b||GG"}},
		{"plus lines with more or less than the header", "@a x\nACGT\n+a\nIIII\n@b\nGG\n+b y\nII\n@c\nG\n+ \nI\n", Options{}, "FASTQ", DNA,
			[]string{"1 0 a|x|ACGT", "5 1 b||GG", "9 2 c||G"}},
		{"letters beyond Z never legal", ">a\n[ACGT\n", Options{}, "FASTA", DNA, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records, r, err := readAll(strings.NewReader(tt.input), tt.options)
			if tt.want == nil {
				if err == nil {
					t.Fatalf("read %q without an error", summary(records))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(records); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("read %q, want %q", got, tt.want)
			}
			if formatOf(r) != tt.format || r.Alphabet() != tt.alphabet {
				t.Errorf("it is %s of %s, want %s of %s", formatOf(r), r.Alphabet(), tt.format, tt.alphabet)
			}
		})
	}
}

func TestErrorsNameFileRecordAndLine(t *testing.T) {
	forced := Options{Alphabet: DNA}
	tests := []struct {
		name, input string
		options     Options
		kind        error
		want        string
	}{
		{"empty input", "", Options{}, ErrNoRecords, "in: the input holds no records"},
		{"white space only", " \n\r\n\t", Options{}, ErrNoRecords, "in: the input holds no records"},
		{"web page", "<!DOCTYPE html>\n<html>", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "<!DOCTYPE html>"`},
		{"JSON", "\n{\"a\": 1}", Options{}, ErrNotSequences,
			`in:2: this is not FASTA or FASTQ: it starts with "{\"a\": 1}"`},
		{"Word document", "PK\x03\x04\x14\x00", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "PK\x03\x04\x14\x00"`},
		{"binary", "\x00\x01\x02", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "\x00\x01\x02"`},
		{"letters without a header", "ACGT\n>a\nACGT", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "ACGT"`},
		{"no letters", ">a\nAC\n>b\n>c\nAC\n", forced, ErrBadRecord, `in:3: record "b": no sequence`},
		{"no letters at the end", ">a\nAC\n>b", forced, ErrBadRecord, `in:3: record "b": no sequence`},
		{"headers only", ">a\n>b\n", forced, ErrBadRecord, `in:1: record "a": no sequence`},
		{"white space for letters", ">a\nAC\n>b\n \n", forced, ErrBadRecord, `in:3: record "b": no sequence`},
		{"only a stop", ">a\nMK\n>b\n*\n", Options{}, ErrBadRecord, `in:3: record "b": no sequence`},
		{"empty read", "@a\nAC\n+\nII\n@b\n\n+\n\n", Options{}, ErrBadRecord, `in:5: record "b": no sequence`},
		{"no id", ">a\nAC\n>\nAC\nGT\n", forced, ErrBadRecord, `in:3: a header without an id`},
		{"blank id", ">a\nAC\n>  \nAC\n", forced, ErrBadRecord, `in:3: a header without an id`},
		{"last read without id", "@a\nAC\n+\nII\n@\nAC\n+\nII\n", Options{}, ErrBadRecord, `in:5: a header without an id`},
		{"illegal letter", ">a\nACGT\n>b x\nAC\nGJ\n", forced, ErrBadRecord, `in:3: record "b": letter 4: "J" is not a letter of the DNA alphabet`},
		{"illegal letter, detected", ">a\nACGTACGTACGTACGTACGT\n>b\nACJ\n", Options{}, ErrBadRecord,
			`in:3: record "b": letter 3: "J" is not a letter of the DNA alphabet (the first 2 records made the input DNA)`},
		{"illegal letter, one record", ">a\nACGTACGTACGTACGTACGTJ\n", Options{}, ErrBadRecord,
			`in:1: record "a": letter 21: "J" is not a letter of the DNA alphabet (the first record made the input DNA)`},
		{"protein as FASTQ", "@a\nMKLVL\n+\nIIIII\n", Options{}, ErrBadRecord,
			`in:1: record "a": letter 3: "L" is not a letter of the DNA alphabet (FASTQ is DNA)`},
		{"digit", ">a\nACGTACGTACGTACGTACGT\n>b\nAC1\n", Options{}, ErrBadRecord, `in:3: record "b": letter 3: "1" is not a letter of the DNA alphabet`},
		{"deletion", ">a\nACGTACGTACGTAC**ACGT\n", Options{}, ErrBadRecord,
			`in:1: record "a": letter 15: "*" is not a letter of the DNA alphabet (the first record made the input DNA)`},
		{"mark inside a line", ">a\nMKVLAAGWQ>b\nMKV\n", Options{}, ErrBadRecord, `in:1: record "a": letter 10: ">" is not a letter of the protein alphabet`},
		{"indented header", ">a\nMKVLAAGWQ\n  >b\nMKV\n", Options{}, ErrBadRecord, `in:1: record "a": letter 10: ">" is not a letter of the protein alphabet`},
		{"numbered lines", ">a\n1 gatcctccat atacaacggt\n21 atctccacct caggtttaga\n", Options{}, ErrBadRecord,
			`in:1: record "a": letter 1: "1" is not a letter of the DNA alphabet`},
		{"gap in DNA", ">a\nAC-GT\n", forced, ErrGap, `in:1: record "a": letter 3: "-" is a gap`},
		{"gap in a protein", ">a\nMK.V\n", Options{Alphabet: Protein}, ErrGap, `in:1: record "a": letter 3: "." is a gap`},
		{"gap is a bad record", ">a\nAC-GT\n", forced, ErrBadRecord, `in:1: record "a": letter 3: "-" is a gap`},
		{"gaps only", ">a\nMK\n>b\n--.-\n", Options{Alphabet: Protein}, ErrBadRecord, `in:3: record "b": no sequence, only gaps`},
		{"gaps only, removed", ">a\nMK\n>b\n--.-\n", Options{Alphabet: Protein, Gaps: GapsRemove}, ErrBadRecord, `in:3: record "b": no sequence`},
		{"cannot tell", ">a\nTG\n>b\nGT\n", Options{}, ErrAlphabet, `in: the first 2 records cannot tell whether this is DNA or protein`},
		{"PIR", ">DL;SEQ1\ntitle\nACGT*\n", Options{}, ErrNotSequences,
			`in:1: record "DL;SEQ1": this is PIR (NBRF), not FASTA: its headers begin with a code and ";"`},
		{"SAM", "@SQ\tSN:chr1\tLN:100\nr1\t0\tchr1\t1\n", Options{}, ErrNotSequences, `in:1: this is SAM, not FASTQ`},
		{"UTF-16", "\xff\xfe>\x00a\x00", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "\xff\xfe>\x00a\x00"; this is text in UTF-16, and has to be saved as UTF-8`},
		{"UTF-16 without a mark", ">\x00a\x00\n\x00A\x00C\x00", Options{OnBad: BadSkip}, ErrNotSequences,
			`in:1: this is text in UTF-16, and has to be saved as UTF-8`},
		{"UTF-16, the other order", "\x00>\x00a\x00\n\x00A\x00C", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "\x00>\x00a\x00"; this is text in UTF-16, and has to be saved as UTF-8`},
		{"Stockholm", "# STOCKHOLM 1.0\n\na ACGT\n//\n", Options{}, ErrNotSequences,
			`in:1: this is not FASTA or FASTQ: it starts with "# STOCKHOLM 1.0"; this is an alignment in Stockholm format`},
		{"comment", "; c\n>a\nAC", Options{}, ErrNotSequences, `in:1: this is not FASTA or FASTQ: it starts with "; c"; comments have to be removed`},
		{"plus line of another read", "@a\nAC\n+\nII\n@b\nAC\n+c\nII\n", Options{}, ErrMalformed,
			`in:5: record "b": its "+" line, line 7, names another read: "c"`},
		{"long plus line", "@a\nAC\n+" + strings.Repeat("x", maxHeader), Options{}, ErrMalformed, `in:1: record "a": its "+" line is longer than 1048576 bytes`},
		{"stop inside a protein", ">a\nMK*V*\n", Options{Alphabet: Protein}, ErrBadRecord,
			`in:1: record "a": letter 3: "*" is a stop inside the protein; only one at its end is dropped`},
		{"two stops", ">a\nMK**\n", Options{Alphabet: Protein}, ErrBadRecord,
			`in:1: record "a": letter 3: "*" is a stop inside the protein; only one at its end is dropped`},
		{"letter beyond ASCII", ">a\nAC\xc3\xa9\n", forced, ErrBadRecord, `in:1: record "a": letter 3: "\xc3" is not a letter of the DNA alphabet`},
		{"same id twice", ">a\nAC\n>b\nAC\n>a x\nGG\n", Options{}, ErrDuplicateID, `in:5: record "a": the record on line 1 has the same id`},
		{"read of a header", "@a\nAC\n+\nII\n@b", Options{}, ErrTruncated, `in:5: record "b": the input ends inside this record, before its quality line`},
		{"read without quality", "@a\nACGT\n", Options{}, ErrTruncated, `in:1: record "a": the input ends inside this record, before its quality line`},
		{"read cut after plus", "@a\nACGT\n+", Options{}, ErrTruncated, `in:1: record "a": the input ends inside this record, before its quality line`},
		{"read of half a quality", "@a\nAC\n+\nII\n@b\nACGT\n+\nII", Options{}, ErrTruncated,
			`in:5: record "b": the input ends inside this record, after 2 quality values for 4 letters`},
		{"read without plus", "@a\nAC\n+\nII\n@b\nACGT\n@c\nAC\n+\nII\n", Options{}, ErrMalformed,
			`in:5: record "b": line 7 begins a new record before this one had its "+" line`},
		{"too much quality", "@a\nAC\n+\nIII\n@b\nAC\n+\nII\n", Options{}, ErrMalformed,
			`in:1: record "a": 3 quality values for 2 letters (up to line 4)`},
		{"quality on one more line", "@a\nAC\n+\nII\nI\n", Options{}, ErrMalformed,
			`in:1: record "a": line 5, after this record, should begin with "@", not "I"; are there more quality values than letters?`},
		{"FASTA after FASTQ", "@a\nAC\n+\nII\n>b\nAC\n", Options{}, ErrMalformed,
			`in:1: record "a": line 5, after this record, should begin with "@", not ">"; are there more quality values than letters?`},
		{"long header", ">a " + strings.Repeat("x", maxHeader), Options{}, ErrMalformed, `in:1: record "a": the header line is longer than 1048576 bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records, r, err := readAll(strings.NewReader(tt.input), tt.options)
			if err == nil {
				t.Fatalf("read %q without an error", summary(records))
			}
			if err.Error() != tt.want {
				t.Errorf("the error is\n%s\nwant\n%s", err, tt.want)
			}
			var where *FormatError
			if !errors.As(err, &where) || !errors.Is(err, tt.kind) {
				t.Errorf("%#v is not a FormatError of kind %v", err, tt.kind)
			}
			if r != nil {
				if _, again := r.Read(); again != err {
					t.Errorf("after that Read returns %v", again)
				}
			}
		})
	}
}

func TestRecordsBeforeAnErrorAreReturned(t *testing.T) {
	for _, tt := range []struct {
		input string
		want  int
	}{
		{">a\nACGT\n>b\nAC\n>c\nA1\n>d\nAC\n", 2},
		{"@a\nAC\n+\nII\n@b\nAC\n+\nII\n@c\nAC\n+\nI", 2},
		{"@a\nAC\n+\nII\n@b\nAC\n+\nII\nI\n@c\nAC\n+\nII\n", 2},
		{"@a\nAC\n+\nII\n@b\nAC\n+\nII\n@c\nAC\n@d", 2},
	} {
		records, _, err := readAll(strings.NewReader(tt.input), Options{})
		if err == nil || len(records) != tt.want {
			t.Errorf("%q: %d records and error %v, want %d and an error", tt.input, len(records), err, tt.want)
		}
	}
}

func TestBadRecordsAreSkippedAndCounted(t *testing.T) {
	input := ">a\nACGT\n>b\nAC\n>c\n\n>d\nACGJ\n>\nACGT\n>e\nACGTA\n>b\nACGT\n"
	records, r, err := readAll(strings.NewReader(input), Options{Alphabet: DNA, OnBad: BadSkip, MinLength: 4})
	if err != nil {
		t.Fatal(err)
	}
	// The first record called b was left out, so the second one is no duplicate.
	want := []string{"1 0 a||ACGT", "11 5 e||ACGTA", "13 6 b||ACGT"}
	if got := summary(records); !reflect.DeepEqual(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	counts := map[string]int64{ReasonTooShort: 1, ReasonEmpty: 1, ReasonIllegalLetter: 1, ReasonNoID: 1}
	if got := r.SkipCounts(); !reflect.DeepEqual(got, counts) {
		t.Errorf("skipped %v, want %v", got, counts)
	}
	skips := []Skip{
		{"b", 3, ReasonTooShort, "2 letters, fewer than 4"},
		{"c", 5, ReasonEmpty, "no sequence"},
		{"d", 7, ReasonIllegalLetter, `letter 4: "J" is not a letter of the DNA alphabet`},
		{"", 9, ReasonNoID, "a header without an id"},
	}
	if got := r.Skipped(); !reflect.DeepEqual(got, skips) {
		t.Errorf("skipped %v, want %v", got, skips)
	}
	if r.Records() != 7 {
		t.Errorf("met %d records, want 7", r.Records())
	}
}

func TestSkippedRecordsTakeBoundedMemory(t *testing.T) {
	var input strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&input, ">r%d\nA\n", i)
	}
	_, r, err := readAll(strings.NewReader(input.String()), Options{Alphabet: DNA, MinLength: 2})
	if err != nil {
		t.Fatal(err)
	}
	if n := r.SkipCounts()[ReasonTooShort]; n != 1000 {
		t.Errorf("counted %d, want 1000", n)
	}
	if n := len(r.Skipped()); n != maxSkipExamples {
		t.Errorf("kept %d examples, want %d", n, maxSkipExamples)
	}
}

func TestSkippingDoesNotHideATruncatedRead(t *testing.T) {
	_, _, err := readAll(strings.NewReader("@a\nAC\n+\nII\n@b\nACGT\n+\nII"), Options{OnBad: BadSkip, MinLength: 100})
	if !errors.Is(err, ErrTruncated) {
		t.Errorf("the error is %v, want %v", err, ErrTruncated)
	}
}

func TestRecordsBelongToTheCaller(t *testing.T) {
	var input strings.Builder
	for i := range 300 {
		fmt.Fprintf(&input, ">r%d d%d\n%s\n", i, i, strings.Repeat("ACGT"[i%4:i%4+1], 1+i))
	}
	records, _, err := readAll(strings.NewReader(input.String()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		if r.ID != fmt.Sprintf("r%d", i) || r.Description != fmt.Sprintf("d%d", i) || string(r.Seq) != strings.Repeat("ACGT"[i%4:i%4+1], 1+i) {
			t.Fatalf("record %d became %q %q %q", i, r.ID, r.Description, r.Seq)
		}
	}
}

// dripReader returns one byte per read, and sometimes none.
type dripReader struct {
	r     io.Reader
	calls int
}

func (d *dripReader) Read(p []byte) (int, error) {
	d.calls++
	if d.calls%3 == 0 || len(p) == 0 {
		return 0, nil
	}
	return d.r.Read(p[:1])
}

func TestResultDoesNotDependOnHowTheBytesArrive(t *testing.T) {
	for _, input := range []string{
		"\r\n >a x\r\nAC\r\nGT\r\n\r\n>b\r\n>c\r\nGG\r\n",
		"\n\r\n@a\r\nACGT\r\n+\r\n@III\r\n \r\n@b\r\nG\r\nG\r\n+\r\n@\r\n@\r\n",
		"@a\nAC\n+\nII\n@b\nACGT\n+\nII",
	} {
		o := Options{OnBad: BadSkip}
		want, _, wantErr := readAll(strings.NewReader(input), o)
		got, _, gotErr := readAll(&dripReader{r: strings.NewReader(input)}, o)
		if !reflect.DeepEqual(got, want) || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Errorf("%q: byte by byte %q, %v; at once %q, %v", input, summary(got), gotErr, summary(want), wantErr)
		}
	}
}

func TestInputThatGivesNothingForEverEnds(t *testing.T) {
	_, _, err := readAll(io.MultiReader(strings.NewReader(">a\nAC\n"), silent{}), Options{})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("the error is %v, want %v", err, io.ErrNoProgress)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestReadAfterClose(t *testing.T) {
	r, err := NewReader(strings.NewReader(">a\nACGT\n>b\nAC\n"), "in", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if _, err := r.Read(); err == nil || err == io.EOF {
		t.Errorf("Read returns %v after Close", err)
	}
}

// formatOf returns the name of the format that the parser has recognised.
func formatOf(r *Reader) string {
	if r.parser.fastq {
		return "FASTQ"
	}
	return "FASTA"
}
