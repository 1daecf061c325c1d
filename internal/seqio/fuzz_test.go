package seqio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// optionsFrom derives a combination of options from the bits of a number.
func optionsFrom(bits uint8) Options {
	return Options{
		Alphabet:   Alphabet(bits % 4 % 3),
		Gaps:       GapPolicy(bits >> 2 & 1),
		KeepCase:   bits&0x08 != 0,
		OnBad:      Policy(bits >> 4 & 1),
		Duplicates: DuplicatePolicy(bits >> 5 & 1),
		MinLength:  int(bits >> 6),
	}
}

// FuzzReader checks a Reader with any bytes and options. Reading must end, the records must be clean (see checkClean),
// every record must be returned or counted as left out, and the results must be the same if the bytes arrive one by
// one.
func FuzzReader(f *testing.F) {
	for _, text := range []string{
		"", ">", "@", ">\n>", "\n@\n@", ">a\nACGT\n>b\n\n>c x\nAC GT\r\n", "@a\nACGT\n+\n@III\n@b\nGG\n+\nI", "@\n\n+\n\n@\nA\n+\nI",
		"\ufeff>a\rMKL*\r>a\rM*K", ">a\nMK-L.\n>b\n--\n>c\n.\n", "@a\nA.C\n+b\nIII\n", ">caf\xe9\nACXXXGT\n>caf\xe8\nACGTACGTACGTACGTACGT\n>p\nMKVLAAGWQEF\n", ">a\n>b\n>c", "@a\nAC\n+\n@a\nAC\n+", " \t>  a\n@\n", "<html>", ">\xff\xfe\nAC\n",
	} {
		f.Add([]byte(text), uint8(0))
		f.Add([]byte(text), uint8(0x32))
	}
	for _, compress := range compressions(f) {
		f.Add(compress(">a\r\nACGT\r\n>b\r\n\r\n>b\r\nGGC"), uint8(0x10))
		f.Add(compress("@a\nACGT\n+\n@III\n@b\nGG\n+\nI"), uint8(0x20))
	}
	f.Fuzz(func(t *testing.T, input []byte, bits uint8) {
		o := optionsFrom(bits)
		records, r, err := readAll(bytes.NewReader(input), o)
		if r == nil {
			if err == nil {
				t.Fatal("neither a reader nor an error")
			}
			return
		}
		checkClean(t, records, r)
		var skipped int64
		for _, n := range r.SkipCounts() {
			skipped += n
		}
		total := int64(len(records)) + skipped
		if err == nil && r.Records() != total || err != nil && r.Records() != total && r.Records() != total+1 {
			t.Errorf("%d records, %d returned, %d skipped, error %v", r.Records(), len(records), skipped, err)
		}
		again, _, errAgain := readAll(&dripReader{r: bytes.NewReader(input)}, o)
		if !reflect.DeepEqual(again, records) || fmt.Sprint(errAgain) != fmt.Sprint(err) {
			t.Errorf("byte by byte: %q, %v; at once: %q, %v", summary(again), errAgain, summary(records), err)
		}
	})
}

// checkClean checks that records are as the comments of Record and Options say: each has an id that no other record
// has, legal letters, and a higher line and index than the record before.
func checkClean(t *testing.T, records []Record, r *Reader) {
	t.Helper()
	legal := "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if r.Alphabet() == DNA {
		legal = "ACGTNRYSWKMBDHV"
	}
	if r.options.KeepCase {
		legal += strings.ToLower(legal)
	}
	ids := make(map[string]bool)
	for i, record := range records {
		if record.ID == "" || strings.ContainsFunc(record.ID, unicode.IsSpace) || !utf8.ValidString(record.ID+record.Description) {
			t.Errorf("record %d: id %q, description %q", i, record.ID, record.Description)
		}
		if ids[record.ID] {
			t.Errorf("record %d: id %q came before", i, record.ID)
		}
		ids[record.ID] = true
		if len(record.Seq) == 0 || len(record.Seq) < r.options.MinLength || len(bytes.Trim(record.Seq, legal)) > 0 {
			t.Errorf("record %d: letters %q", i, record.Seq)
		}
		if i > 0 && (record.Line <= records[i-1].Line || record.Index <= records[i-1].Index) {
			t.Errorf("record %d is on line %d with index %d, the one before on %d with %d", i, record.Line, record.Index,
				records[i-1].Line, records[i-1].Index)
		}
	}
}

// writeRecords writes random records in a random layout that the format allows. It returns the text, and the records
// that a reader of the text must return. If the text is truncated to a length that is a key of ends, it ends with a
// complete record; the value is the number of its records.
func writeRecords(rng *rand.Rand, fastq bool) (text string, records []Record, ends map[int]int) {
	eol := []string{"\n", "\r\n"}[rng.IntN(2)]
	width := 1 + rng.IntN(30)
	line := int64(1)
	var b strings.Builder
	put := func(s string) {
		b.WriteString(s + eol)
		line++
	}
	wrapped := func(s string) {
		for len(s) > width {
			put(s[:width])
			s = s[width:]
		}
		put(s)
	}
	ends = make(map[int]int)
	for i := range 1 + rng.IntN(6) {
		for range rng.IntN(3) {
			put("")
		}
		record := Record{ID: fmt.Sprintf("r%d", i), Line: line, Index: int64(i)}
		if rng.IntN(2) == 0 {
			record.Description = "len=5\t>x @y +z"
		}
		record.Seq = randomLetters(rng, "ACGTN", 1+rng.IntN(80))
		header := strings.TrimSpace(record.ID + " " + record.Description)
		if fastq {
			put("@" + header)
			wrapped(string(record.Seq))
			put([]string{"+", "+" + header}[rng.IntN(2)])
			wrapped(string(randomLetters(rng, "@+>!~IA", len(record.Seq))))
		} else {
			put(">" + header)
			wrapped(string(record.Seq))
		}
		for back := range len(eol) + 1 {
			ends[b.Len()-back] = i + 1
		}
		records = append(records, record)
		for range rng.IntN(2) {
			put("")
			ends[b.Len()], ends[b.Len()-1] = i+1, i+1
		}
	}
	return b.String(), records, ends
}

func randomLetters(rng *rand.Rand, from string, n int) []byte {
	s := make([]byte, n)
	for i := range s {
		s[i] = from[rng.IntN(len(from))]
	}
	return s
}

// FuzzRoundTrip checks that a Reader returns the records that writeRecords has written. If a FASTQ text is truncated
// inside a record, the error must be ErrTruncated. If the text is truncated between two records, all records up to
// there must be returned.
func FuzzRoundTrip(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed, seed%2 == 0, uint16(seed*37))
	}
	f.Fuzz(func(t *testing.T, seed uint64, fastq bool, cut uint16) {
		text, want, ends := writeRecords(rand.New(rand.NewPCG(seed, 1)), fastq)
		got, _, err := readAll(strings.NewReader(text), Options{Alphabet: DNA})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nread %q\nwant %q", text, summary(got), summary(want))
		}
		if !fastq {
			return
		}
		n := int(cut) % len(text)
		got, _, err = readAll(strings.NewReader(text[:n]), Options{Alphabet: DNA})
		complete, border := ends[n], false
		if _, border = ends[n]; !border && strings.TrimSpace(text[max(0, lastEnd(ends, n)):n]) == "" {
			complete, border = ends[lastEnd(ends, n)], true
		}
		switch {
		case border && complete == 0:
			if !errors.Is(err, ErrNoRecords) {
				t.Errorf("%q: error %v, want %v", text[:n], err, ErrNoRecords)
			}
		case border && (err != nil || !reflect.DeepEqual(got, want[:complete])):
			t.Errorf("%q: %d records and error %v, want %d", text[:n], len(got), err, complete)
		case !border && (!errors.Is(err, ErrTruncated) || !isPrefix(got, want)):
			t.Errorf("%q: %q and error %v, want %v", text[:n], summary(got), err, ErrTruncated)
		}
	})
}

// lastEnd returns the largest length in ends that is at most n, or -1 if there is none.
func lastEnd(ends map[int]int, n int) int {
	last := -1
	for end := range ends {
		if end <= n && end > last {
			last = end
		}
	}
	return last
}

func isPrefix(got, want []Record) bool {
	return len(got) <= len(want) && (len(got) == 0 || reflect.DeepEqual(got, want[:len(got)]))
}

// FuzzJudge checks two properties of judge, which tells DNA from protein by the letters. First, the case and the order
// of the letters, and additional gaps, stops, digits and X, must not change the result. Second, a text that consists
// only of letters that are no nucleotide codes must not be certainly DNA.
func FuzzJudge(f *testing.F) {
	for _, letters := range []string{"ACGTACGTACGTACGT", "MKVLAAGWQ", "GGGGSGGGGS", "AAACTYAAAKGAATTGRCGG", "NNNN", "TGTGTGTG", "XXXX", "0İ", ""} {
		f.Add([]byte(letters), uint64(1))
	}
	const noEvidence = "-.*0123456789xX \n>"
	judge := func(letters []byte) string {
		var c composition
		c.add(letters)
		a, sure := c.judge()
		return fmt.Sprint(a, sure)
	}
	f.Fuzz(func(t *testing.T, letters []byte, seed uint64) {
		want := judge(letters)
		rng := rand.New(rand.NewPCG(seed, 1))
		changed := bytes.Clone(letters) // bytes.ToLower would replace U+0130 by the letter i
		for i, b := range changed {
			if 'A' <= b && b <= 'Z' {
				changed[i] = b + 'a' - 'A'
			}
		}
		for range rng.IntN(20) {
			changed = append(changed, noEvidence[rng.IntN(len(noEvidence))])
		}
		rng.Shuffle(len(changed), func(i, j int) { changed[i], changed[j] = changed[j], changed[i] })
		if got := judge(changed); got != want {
			t.Errorf("%q is %s, and %q %s", letters, want, changed, got)
		}
		if len(bytes.Trim(letters, "EFJLOPQZefjlopqz")) == 0 && want == fmt.Sprint(DNA, true) {
			t.Errorf("%q is %s", letters, want)
		}
	})
}

// FuzzNewlines checks that converting the line ends of a text in pieces gives the same result as converting the whole
// text.
func FuzzNewlines(f *testing.F) {
	f.Add([]byte("a\r\nb\rc\n\r\r\n\n\r"), uint8(1))
	f.Add([]byte("\r\n\r\n"), uint8(3))
	f.Add([]byte("no end"), uint8(2))
	f.Fuzz(func(t *testing.T, input []byte, piece uint8) {
		want := strings.ReplaceAll(strings.ReplaceAll(string(input), "\r\n", "\n"), "\r", "\n")
		var l newlines
		var got []byte
		in := bytes.NewReader(input)
		buf := make([]byte, int(piece)+1)
		for {
			n, err := in.Read(buf)
			got = append(got, buf[:l.normalise(buf[:n])]...)
			if err == io.EOF {
				break
			}
		}
		if string(got) != want {
			t.Errorf("%q in pieces of %d became %q, want %q", input, len(buf), got, want)
		}
	})
}
