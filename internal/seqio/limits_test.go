package seqio

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// xzStream returns ">a\nACGT\n" as xz compresses it, but with another size of the dictionary: the byte dictionary
// replaces the byte in the header that stands for 8 MiB.
func xzStream(t *testing.T, dictionary byte) []byte {
	t.Helper()
	content := []byte(compressions(t)[".xz"](">a\nACGT\n"))
	at := bytes.Index(content, []byte{0x21, 1}) + 2
	if at < 2 || content[at] != 22 {
		t.Fatalf("% x has no dictionary of 8 MiB", content)
	}
	content[at] = dictionary
	return content
}

// TestHugeDictionary checks xz data that asks for a dictionary of up to 4 GiB. A dictionary over the limit must be
// refused before memory is allocated for it.
func TestHugeDictionary(t *testing.T) {
	for dictionary, want := range map[byte]string{
		22: "", 38: "2048 MiB", 39: "3072 MiB", 40: "4095 MiB",
	} {
		content := xzStream(t, dictionary)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(bytes.NewReader(content), Options{})
		runtime.ReadMemStats(&after)
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "a dictionary of "+want+", and 1536 MiB are the limit") {
			t.Errorf("dictionary %d: %v", dictionary, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("dictionary %d took %d bytes", dictionary, took)
		}
	}
	// A dictionary of 1 GiB is below the limit, so it is not refused. Reading fails only because xzStream changes a byte
	// of the header, but not the header's checksum.
	if _, _, err := readAll(bytes.NewReader(xzStream(t, 36)), Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("1 GiB: %v", err)
	}
	// A stream that is truncated after any byte must be an error.
	whole := xzStream(t, 40)
	for n := range len(whole) {
		if _, _, err := readAll(bytes.NewReader(whole[:n]), Options{}); err == nil {
			t.Errorf("the first %d bytes are read", n)
		}
	}
}

// TestHugeRecord checks that a parser refuses a record that is longer than its limit with ErrLimit, and that it keeps
// no more than twice as many letters as the limit.
func TestHugeRecord(t *testing.T) {
	const most = 1 << 16
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, ">small\nACGT\n>huge\n")
	for range 64 {
		_, _ = w.Write(bytes.Repeat([]byte("A"), most))
	}
	w.Close()
	for _, lines := range []string{"one line", "many lines", "FASTQ"} {
		var text io.Reader
		switch lines {
		case "one line":
			src, err := newSource(bytes.NewReader(packed.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			text = src
		case "many lines":
			text = strings.NewReader(">small\nACGT\n>huge\n" + strings.Repeat("ACGTACGT\n", most))
		default:
			text = strings.NewReader("@small\nACGT\n+\nIIII\n@huge\n" + strings.Repeat("ACGTACGT", most) + "\n+\n")
		}
		p := newParser(text, "in")
		p.limit.Letters = most
		if raw, err := p.next(); err != nil || raw.header != "small" {
			t.Fatalf("%s: %v", lines, err)
		}
		_, err := p.next()
		if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), `record "huge": more than 65536 letters, which is the limit`) {
			t.Errorf("%s: %v", lines, err)
		}
		if p.letters.len > 2*most {
			t.Errorf("%s: %d letters were kept", lines, p.letters.len)
		}
		p.close()
	}
}

// TestHugeDictionaryOfALaterBlock checks that the limit for dictionaries holds for every block and every stream of xz
// data, not only for the first.
func TestHugeDictionaryOfALaterBlock(t *testing.T) {
	var blocks bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: 16, DictCap: 1 << 16}.NewWriter(&blocks)
	if err != nil {
		t.Fatal(err)
	}
	text := ">a\nACGTACGTACGT\n>b\nACGTACGTACGT\n>c\nACGTACGTACGT\n"
	_, err = io.WriteString(w, text)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	filter := []byte{0x21, 1, 8} // LZMA2 with a dictionary of 64 KiB
	n := bytes.Count(blocks.Bytes(), filter)
	if n < 3 {
		t.Fatalf("% x has %d blocks", blocks.Bytes(), n)
	}
	streams := append(bytes.Clone(blocks.Bytes()), blocks.Bytes()...)
	for block := range 2 * n {
		content, at := bytes.Clone(streams), 0
		for range block {
			at += bytes.Index(content[at:], filter) + 1
		}
		at += bytes.Index(content[at:], filter)
		content[at+2] = 40
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(bytes.NewReader(content), Options{Duplicates: DuplicateSuffix})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "a dictionary of 4095 MiB") {
			t.Errorf("block %d of %d: %v", block, 2*n, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 256<<20 {
			t.Errorf("block %d took %d bytes", block, took)
		}
	}
	if records, _, err := readAll(bytes.NewReader(streams), Options{Duplicates: DuplicateSuffix}); err != nil || len(records) != 6 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

// TestHugeRecordIsLeftOut checks that a record longer than Options.Longest is skipped and counted under BadSkip, and is
// an ErrLongRecord under BadError.
func TestHugeRecordIsLeftOut(t *testing.T) {
	const most = 1 << 16
	lines := strings.Repeat("ACGTACGT\n", most)
	for format, text := range map[string]string{
		"FASTA":    ">small\nACGT\n>huge\n" + lines + ">after\nACGT\n",
		"one line": ">huge\n" + strings.Repeat("A", 9*most) + "\n>small\nACGT\n>after\nACGT\n",
		"FASTQ":    "@small\nACGT\n+\nIIII\n@huge\n" + lines + "+\n" + strings.ReplaceAll(lines, "C", "@") + "@after\nACGT\n+\nIIII\n",
	} {
		r, err := NewReader(strings.NewReader(text), "in", Options{OnBad: BadSkip, Longest: Limit{most, "the memory of a test"}})
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		var ids []string
		for {
			record, err := r.Read()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			ids = append(ids, record.ID)
		}
		if !slices.Equal(ids, []string{"small", "after"}) || r.SkipCounts()[ReasonTooLong] != 1 || len(r.Skipped()) != 1 ||
			r.Skipped()[0].Detail != "more than 65536 letters, which is the limit for the memory of a test" {
			t.Errorf("%s: records %q, left out %v", format, ids, r.Skipped())
		}
		r.Close()
		_, _, err = readAll(strings.NewReader(text), Options{Longest: Limit{most, "the memory of a test"}})
		if !errors.Is(err, ErrLongRecord) || !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "the memory of a test") {
			t.Errorf("%s: %v", format, err)
		}
	}
}
