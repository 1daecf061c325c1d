package seqio

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// randomFile returns a FASTA or FASTQ file of n records of DNA in which the beginnings of records are hard to find:
// headers contain '>' and '@', and lines of quality values may begin with '@' or '+'. The line ends are of one random
// kind.
func randomFile(rng *rand.Rand, fastq bool, n int) []byte {
	var b bytes.Buffer
	end := []string{"\n", "\n", "\r\n", "\r"}[rng.IntN(4)]
	for i := range n {
		length := 1 + rng.IntN(40)
		if rng.IntN(10) == 0 {
			length += rng.IntN(3000)
		}
		seq := randomLetters(rng, "ACGT", length)
		if fastq {
			lines := []string{fmt.Sprintf("@r%d >x @y", i), string(seq), "+", string(randomLetters(rng, "@+>IIII", length))}
			b.WriteString(strings.Join(lines, end) + end)
			continue
		}
		fmt.Fprintf(&b, ">r%d >x @y%s", i, end)
		for line := range slices.Chunk(seq, 1+rng.IntN(70)) {
			b.Write(line)
			b.WriteString(end)
		}
		if rng.IntN(5) == 0 {
			b.WriteString(end)
		}
	}
	return b.Bytes()
}

// packed returns content compressed with gzip.
func packed(content []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(content) // writing to a bytes.Buffer cannot fail
	_ = z.Close()
	return b.Bytes()
}

// readFile returns the records of a file, or of the part that o.Part describes, and the Part that is the whole file.
func readFile(path string, o Options) ([]Record, Part, error) {
	r, err := Open(path, o)
	if err != nil {
		return nil, Part{}, err
	}
	defer r.Close()
	var records []Record
	for {
		record, err := r.Read()
		if err == io.EOF {
			if n := r.Records(); n != int64(len(records)) {
				err = fmt.Errorf("%d records counted, %d returned", n, len(records))
			}
			return records, Whole(r), nilAtEOF(err)
		}
		if err != nil {
			return records, Part{}, err
		}
		records = append(records, record)
	}
}

func nilAtEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// readParts cuts a file at the offsets cuts and reads the parts in order. It returns the records of all parts together,
// and the records of each part. If the file is interleaved, the records of all parts together are sorted by Index.
func readParts(path string, whole Part, cuts []int64) (all []Record, parts [][]Record, err error) {
	cuts = append(cuts, whole.Size)
	from := int64(0)
	for _, to := range cuts {
		p := whole
		p.From, p.To = from, to
		records, _, err := readFile(path, Options{Part: p, Duplicates: DuplicateKeep})
		if err != nil {
			return nil, nil, err
		}
		all, parts, from = append(all, records...), append(parts, records), to
	}
	if whole.Interleaved() {
		slices.SortFunc(all, func(a, b Record) int { return int(a.Index - b.Index) })
	}
	return all, parts, nil
}

func sameRecords(a, b []Record) bool {
	return slices.EqualFunc(a, b, func(x, y Record) bool {
		return x.ID == y.ID && x.Description == y.Description && bytes.Equal(x.Seq, y.Seq)
	})
}

// TestPartsHaveEachRecordOnce checks that the parts of a file together have each record exactly once, and in order. The
// files are random, plain or compressed, and are cut at random offsets.
func TestPartsHaveEachRecordOnce(t *testing.T) {
	dir, files := t.TempDir(), uint64(150)
	if testing.Short() {
		files = 20
	}
	for seed := range files {
		rng := rand.New(rand.NewPCG(seed, 7))
		content := randomFile(rng, seed%5%2 == 1, 1+rng.IntN(300))
		switch seed % 5 {
		case 2:
			content = packed(content)
		case 3, 4:
			content = bgzip(content, someLengths(rng))
		}
		path := filepath.Join(dir, fmt.Sprint(seed))
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		want, whole, err := readFile(path, Options{})
		if err != nil {
			t.Fatal(seed, err)
		}
		n := 1 + rng.IntN(7)
		var cuts []int64
		for range n - 1 {
			cuts = append(cuts, rng.Int64N(whole.Size))
		}
		slices.Sort(cuts)
		got, _, err := readParts(path, whole, slices.Compact(cuts))
		if err != nil {
			t.Fatalf("seed %d: cuts %d: %v", seed, cuts, err)
		}
		if !sameRecords(got, want) {
			t.Fatalf("seed %d: cuts %d: %d records, or others than the %d of the file", seed, cuts, len(got), len(want))
		}
	}
}

// TestPartsAreOfEqualSize checks that seven parts of a large file have equal sizes, within 10%, if their ranges are
// equal. The size of a part is the number of letters in its ids and sequences. In an interleaved file it is the number
// of records.
func TestPartsAreOfEqualSize(t *testing.T) {
	dir := t.TempDir()
	for form := range 5 {
		rng := rand.New(rand.NewPCG(uint64(form), 1))
		content := []byte(strings.ReplaceAll(string(randomFile(rng, form == 1, 3000)), "\r", "\n"))
		switch form {
		case 2:
			content = packed([]byte(strings.Repeat(">r\nACGT\n", 12000)))
		case 3:
			content = bytes.ReplaceAll(content, []byte("\n"), []byte("\r"))
		case 4:
			content = bgzip(content, func() int { return 3000 })
		}
		path := filepath.Join(dir, fmt.Sprint(form))
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		_, whole, err := readFile(path, Options{Duplicates: DuplicateKeep})
		if err != nil {
			t.Fatal(err)
		}
		var cuts []int64
		for i := int64(1); i < 7; i++ {
			cuts = append(cuts, whole.Size*i/7)
		}
		_, parts, err := readParts(path, whole, cuts)
		if err != nil {
			t.Fatal(err)
		}
		size := func(records []Record) (n int) {
			if whole.Interleaved() { // its parts consist of groups of 64 records of any length
				return len(records)
			}
			for _, r := range records {
				n += len(r.ID) + len(r.Seq)
			}
			return n
		}
		total := size(slices.Concat(parts...))
		for i, part := range parts {
			if n := size(part); 7*n < total*9/10 || 7*n > total*11/10 {
				t.Errorf("form %d: part %d has a size of %d of %d", form, i, n, total)
			}
		}
	}
}

// TestPlacesThatAreNoRecords checks that findFASTQ finds the first FASTQ record of four lines, and not lines before it
// that resemble one.
func TestPlacesThatAreNoRecords(t *testing.T) {
	const record = "@r\nACGT\n+\n@@@@\n"
	for before, why := range map[string]string{
		"x\n":                           "a record",
		"@III\n":                        "a line of quality values",
		"@III\n#III\n+III\nIIII\n":      "four of them, one of which is in the place of the letters",
		"@III\nACG\n+III\nIIII\n":       "four of them, with more values than letters",
		"@III\nACGT\n!III\nIIII\n":      "four of them, without a plus",
		"x@r\nACGT\n+\nIIII\n":          "a record that begins before",
		"@r\nACGT\nACGT\n+\nIIIIIIII\n": "a record of five lines",
	} {
		got, err := findFASTQ(strings.NewReader("x\n" + before + record))
		if want := int64(2 + len(before)); err != nil || got != want {
			t.Errorf("%s: a record at %d, %v; want %d", why, got, err, want)
		}
	}
	if at, err := findFASTQ(strings.NewReader("x\n@r\nACGT\n+\n@@@@\nACGT\n+\n")); err != io.EOF {
		t.Errorf("%d, %v", at, err)
	}
}

// TestRecordsOfManyLines cuts FASTQ files into two parts at random offsets. Their records have many lines, some of
// which look like records of four lines. The parts together must have all records, or one of them must return
// ErrTruncated or ErrMalformed.
func TestRecordsOfManyLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.fq")
	wrong := 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var b strings.Builder
		for i := range 8 {
			// Together with the lines around them, the quality values may look like a record of four lines.
			fmt.Fprintf(&b, "@r%d\nACGTACGT\nACGT\nACGTACGT\n+\n%s\n", i, []string{"@IIIIIII\nIIII\n+IIIIIII", "IIII\n@III\nACGT\n+III\nIIII", "IIIIIIIIIIII\n@III\nIIII"}[rng.IntN(3)])
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		want, whole, err := readFile(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := readParts(path, whole, []int64{rng.Int64N(whole.Size)})
		switch {
		case errors.Is(err, ErrTruncated), errors.Is(err, ErrMalformed):
			wrong++
		case err != nil || !sameRecords(got, want):
			t.Fatalf("seed %d: %d of %d records, and %v", seed, len(got), len(want), err)
		}
	}
	if wrong == 0 {
		t.Error("no cut was inside a record: the test proves nothing")
	}
}

// TestPartsHaveTheAlphabetOfTheFile checks that a part has the alphabet of its file, even if the part's own records do
// not reveal the alphabet. A record of the other alphabet must be an error that says where the lines are counted from.
func TestPartsHaveTheAlphabetOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	for _, c := range []struct {
		last string
		kind error
	}{{">odd\nTGTGTG\n", nil}, {">P1;odd\nTGTGTG\n", nil}, {">odd\nMKVLLEEQPWEEQPWFFIP\n", ErrAlphabet}} {
		if err := os.WriteFile(path, []byte(strings.Repeat(">a\nACGTTGCATCGATCGATCGATCAGCA\n", 120)+c.last), 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := Whole(r)
		r.Close()
		p.From = p.Size - int64(len(c.last))
		records, _, err := readFile(path, Options{Part: p})
		if !errors.Is(err, c.kind) || c.kind == nil && (len(records) != 1 || records[0].Line != 1) {
			t.Errorf("%q: %v, %v", c.last, records, err)
		}
		if c.kind != nil && !strings.Contains(err.Error(), fmt.Sprintf("lines from the first record after byte %d", p.From)) {
			t.Errorf("%v does not say where the lines are counted from", err)
		}
	}
}
