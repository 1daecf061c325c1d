package seqio

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// xzStream returns ">a\nACGT\n" as xz compresses it, except that the given byte replaces the size of the dictionary,
// which is 8 MiB. The byte is at index dictionaryAt.
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

// TestHugeDictionary checks that compressed data that asks for a dictionary over the limit, up to 4 GiB, is refused
// before memory is allocated for it.
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
	// A dictionary of the largest size that xz writes is not refused. The data is then damaged, because the byte in its
	// header was changed.
	if _, _, err := readAll(bytes.NewReader(xzStream(t, 36)), Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("1 GiB: %v", err)
	}
	// A stream that is cut at any byte must be an error.
	whole := xzStream(t, 40)
	for n := range len(whole) {
		if _, _, err := readAll(bytes.NewReader(whole[:n]), Options{}); err == nil {
			t.Errorf("the first %d bytes are read", n)
		}
	}
}

// TestHugeRecord checks that a record without end is refused at the maximum length, and that reading it takes no more
// memory than that length needs.
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
		p.most = most
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
