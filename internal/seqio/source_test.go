package seqio

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compressions returns functions that compress a text, by file extension. "" stands for the plain text.
func compressions(t testing.TB) map[string]func(text string) []byte {
	with := func(open func(io.Writer) (io.WriteCloser, error)) func(string) []byte {
		return func(text string) []byte {
			var b bytes.Buffer
			w, err := open(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
	}
	return map[string]func(string) []byte{
		"":     func(text string) []byte { return []byte(text) },
		".gz":  with(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		".bz2": with(func(w io.Writer) (io.WriteCloser, error) { return bzip2.NewWriter(w, nil) }),
		".xz":  with(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		".zst": with(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		// These compressors write the text in many small blocks.
		" of small blocks.gz":  with(func(w io.Writer) (io.WriteCloser, error) { return flushing{gzip.NewWriter(w)}, nil }),
		" of small blocks.zst": with(func(w io.Writer) (io.WriteCloser, error) { z, err := zstd.NewWriter(w); return flushing{z}, err }),
		" of small blocks.xz":  with(func(w io.Writer) (io.WriteCloser, error) { return xz.WriterConfig{BlockSize: 15}.NewWriter(w) }),
	}
}

// flushing is a compressor that ends a block after every five bytes.
type flushing struct {
	w interface {
		io.WriteCloser
		Flush() error
	}
}

func (f flushing) Write(p []byte) (int, error) {
	for written := 0; written < len(p); written += 5 {
		if _, err := f.w.Write(p[written:min(written+5, len(p))]); err != nil {
			return written, err
		}
		if err := f.w.Flush(); err != nil {
			return written, err
		}
	}
	return len(p), nil
}

func (f flushing) Close() error { return f.w.Close() }

func TestOpensEveryCompressionByContent(t *testing.T) {
	for ext, compress := range compressions(t) {
		t.Run("plain"+ext, func(t *testing.T) {
			// Compressors that work in parallel write several members one after the other, so the content has two
			// members.
			content := append(compress("\ufeff>a x\nACGT\n>b\nAC"), compress("GT\n>c\nGG\n")...)
			path := filepath.Join(t.TempDir(), "named.for.nothing")
			if err := os.WriteFile(path, content, 0o666); err != nil {
				t.Fatal(err)
			}
			r, err := Open(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, _, err := r.Digest(); !errors.Is(err, ErrNotRead) {
				t.Errorf("a digest before the end: %v", err)
			}
			var records []Record
			for {
				record, err := r.Read()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				records = append(records, record)
			}
			if got, want := summary(records), []string{"1 0 a|x|ACGT", "3 1 b||ACGT", "5 2 c||GG"}; !reflect.DeepEqual(got, want) {
				t.Errorf("read %q, want %q", got, want)
			}
			sum, size, err := r.Digest()
			if want := fmt.Sprintf("%x", sha256.Sum256(content)); sum != want || size != int64(len(content)) || err != nil {
				t.Errorf("digest %s, %d, %v; want %s, %d", sum, size, err, want, len(content))
			}
			if r.Position() != size {
				t.Errorf("at the end of %d bytes the position is %d", size, r.Position())
			}
		})
	}
}

// TestPositionFollowsTheRecords checks Reader.Position after each record, apart from the first tenth of the records.
// The position, as a share of the stored bytes, must be about the share of the records that have been read.
func TestPositionFollowsTheRecords(t *testing.T) {
	const records = 4000
	text := string(proteinRecords(records, 300))
	for ext, ahead := range map[string]float64{"": 0.001, ".gz": 0.03} { // maximum share of the input that buffers hold
		content := compressions(t)[ext](text)
		r, err := NewReader(bytes.NewReader(content), "x", Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for n := 1; n <= records; n++ {
			if _, err := r.Read(); err != nil {
				t.Fatal(ext, err)
			}
			at, want := float64(r.Position()), float64(len(content))*float64(n)/records
			if n > records/10 && (at < want*0.98 || at > want+ahead*float64(len(content))) {
				t.Fatalf("%q: the position is %.0f of %d after %d of %d records", ext, at, len(content), n, records)
			}
		}
	}
}

// proteinRecords returns FASTA with count random proteins of the same length.
func proteinRecords(count, length int) []byte {
	rng := rand.New(rand.NewPCG(2, 2))
	var b bytes.Buffer
	for i := range count {
		fmt.Fprintf(&b, ">r%06d\n%s\n", i, randomLetters(rng, "ACDEFGHIKLMNPQRSTVWY", length))
	}
	return b.Bytes()
}

// TestCompressedInputCutAnywhereIsAnError checks that compressed input that is truncated at any byte is an error. The
// only exception is a cut between two complete members or streams, which cannot be detected.
func TestCompressedInputCutAnywhereIsAnError(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	for ext, compress := range compressions(t) {
		if ext == "" {
			continue
		}
		t.Run(ext, func(t *testing.T) {
			first, second := compress(">a x\nACGTACGTTTACG\n"), compress(">b\nACCCGTAGC\n")
			content := append(bytes.Clone(first), second...)
			for cut := 1; cut < len(content); cut++ {
				records, _, err := readAll(bytes.NewReader(content[:cut]), Options{})
				if cut == len(first) {
					if err != nil || len(records) != 1 {
						t.Errorf("cut after the first member: %d records and error %v", len(records), err)
					}
					continue
				}
				var where *FormatError
				if !errors.As(err, &where) || where.File != "in" {
					t.Errorf("cut at %d of %d: %d records and error %v", cut, len(content), len(records), err)
				}
				if cut > 6 && !errors.Is(err, ErrDamaged) {
					t.Errorf("cut at %d of %d: %v is not %v", cut, len(content), err, ErrDamaged)
				}
			}
		})
	}
}

// TestXZInsideGzipCutAnywhereIsAnError checks that xz data which ends early is an error, even if it was compressed by
// gzip afterwards, so that the gzip data is whole.
func TestXZInsideGzipCutAnywhereIsAnError(t *testing.T) {
	xz, gz := compressions(t)[".xz"], compressions(t)[".gz"]
	first := xz(">a x\nACGTACGTTTACG\n")
	content := append(bytes.Clone(first), xz(">b\nACCCGTAGC\n")...)
	for cut := len(xzMagic); cut < len(content); cut++ {
		records, _, err := readAll(bytes.NewReader(gz(string(content[:cut]))), Options{})
		if whole := cut == len(first); (err == nil) != whole || !whole && !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d of %d: %d records and error %v", cut, len(content), len(records), err)
		}
	}
}

// TestZstdInsideGzipCutAnywhereIsAnError checks the same for gzip data that ends early and has zstd data inside.
func TestZstdInsideGzipCutAnywhereIsAnError(t *testing.T) {
	zstd, gz := compressions(t)[".zst"], compressions(t)[".gz"]
	frames := []string{string(zstd(">a x\nACGTACGTTTACG\n")), string(zstd(">b\nACCCGTAGC\n"))}
	first := gz(frames[0])
	for _, content := range [][]byte{gz(frames[0] + frames[1]), append(bytes.Clone(first), gz(frames[1])...)} {
		for cut := len(gzipMagic); cut < len(content); cut++ {
			records, _, err := readAll(bytes.NewReader(content[:cut]), Options{})
			if whole := cut == len(first) && bytes.HasPrefix(content, first); (err == nil) != whole {
				t.Errorf("cut at %d of %d: %d records and error %v", cut, len(content), len(records), err)
			}
		}
	}
}

// TestSkippableFrames checks zstd data that begins with a skippable frame, as pzstd writes it.
func TestSkippableFrames(t *testing.T) {
	zstd := compressions(t)[".zst"]
	for _, low := range []byte{0, 0xf} {
		content := append([]byte{0x50 | low, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, zstd(">a\nACGT\n")...)
		if records, _, err := readAll(bytes.NewReader(content), Options{}); err != nil || len(records) != 1 {
			t.Errorf("%d records, error %v", len(records), err)
		}
	}
}

// TestXZFilters checks that xz data with a filter other than LZMA2, here that for machine code, is not called damaged.
func TestXZFilters(t *testing.T) {
	content, err := hex.DecodeString("fd377a585a0000016922de360201040021010c00d67c18af0100063e610a4d4b560a00002234adf500011b0712ebd4179042990d010000000001595a")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = readAll(bytes.NewReader(content), Options{})
	if !errors.Is(err, ErrLimit) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "filter") {
		t.Errorf("error %v", err)
	}
}

func TestDamagedCompressedInputSaysSo(t *testing.T) {
	gz := compressions(t)[".gz"](">a\nACGTTGCA\n>b\nTTTACGGG\n")
	flipped := bytes.Clone(gz)
	flipped[len(flipped)-8] ^= 1
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"cut":             {gz[:len(gz)-3], "in:3: record \"b\": the gzip data is damaged, cut short or empty: unexpected EOF"},
		"checksum":        {flipped, "in:3: record \"b\": the gzip data is damaged, cut short or empty: gzip: invalid checksum"},
		"holding nothing": {compressions(t)[".zst"](""), "in: the zstd data is damaged, cut short or empty: nothing could be decompressed"},
	} {
		_, _, err := readAll(bytes.NewReader(tt.content), Options{})
		if !errors.Is(err, ErrDamaged) || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestGzipOfNothingHoldsNoRecords(t *testing.T) {
	if _, _, err := readAll(bytes.NewReader(compressions(t)[".gz"]("")), Options{}); !errors.Is(err, ErrNoRecords) {
		t.Errorf("the error is %v, want %v", err, ErrNoRecords)
	}
}

// TestCompressedInputInGzipIsRead checks that files that were compressed twice, the second time with gzip, as some
// servers do, are read like plain files.
func TestCompressedInputInGzipIsRead(t *testing.T) {
	const text = "\ufeff>a\nACGTACGTTTACG\n>b\nAC\n"
	outer := compressions(t)[".gz"]
	for ext, compress := range compressions(t) {
		content := outer(string(compress(text)))
		records, _, err := readAll(bytes.NewReader(content), Options{})
		if got, want := summary(records), []string{"1 0 a||ACGTACGTTTACG", "3 1 b||AC"}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s in gzip: %q and error %v, want %q", ext, got, err, want)
		}
	}
}

// TestBytesAfterGzipMembers checks the bytes after a gzip member, before the next member or at the end. Zeros are
// accepted as padding. Bytes that do not begin another member must be an error that gives their number, and a truncated
// member must be an error, too. The record before such bytes is not returned.
func TestBytesAfterGzipMembers(t *testing.T) {
	gz := compressions(t)[".gz"]
	one, two := string(gz(">a\nACGT\n")), string(gz(">b\nGGTT\n"))
	for _, tt := range []struct {
		name, content, want string
		records             int
	}{
		{"zeros", one + strings.Repeat("\x00", 70_000), "", 1},
		{"one zero", one + "\x00", "", 1},
		{"zeros between members", one + strings.Repeat("\x00", 1000) + two, "", 2},
		{"zeros between and after", one + "\x00\x00" + two + "\x00", "", 2},
		{"an empty member", one + string(gz("")) + two, "", 2},
		{"text", one + "garbage", "in:1: record \"a\": the gzip data is complete, but 7 bytes follow its end", 0},
		{"zeros and text", one + "\x00\x00x" + strings.Repeat("y", 9999), "in:1: record \"a\": the gzip data is complete, but 10000 bytes follow its end", 0},
		{"half a magic", one + two + "\x1f", "in:3: record \"b\": the gzip data is complete, but 1 byte follows its end", 1},
		{"a header cut short", one + two[:5], "in:1: record \"a\": the gzip data is damaged, cut short or empty: unexpected EOF", 0},
		{"a magic alone", one + two[:2], "in:1: record \"a\": the gzip data is damaged, cut short or empty: unexpected EOF", 0},
	} {
		records, _, err := readAll(strings.NewReader(tt.content), Options{Alphabet: DNA})
		switch {
		case tt.want == "" && (err != nil || len(records) != tt.records):
			t.Errorf("%s: %d records and error %v, want %d", tt.name, len(records), err, tt.records)
		case tt.want != "" && (!errors.Is(err, ErrDamaged) || err.Error() != tt.want || len(records) != tt.records):
			t.Errorf("%s: %d records and error %v, want %d and %s", tt.name, len(records), err, tt.records, tt.want)
		}
	}
}

// TestZstdWindows checks that zstd data with a window of up to 2 GiB, the largest that zstd writes, is read, and that a
// larger window is an ErrLimit.
func TestZstdWindows(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	const text = ">a\nACGTACGT\n"
	frame := func(log byte) string {
		block := uint32(len(text))<<3 | 1 // header of a raw block, which is the last block
		return zstdMagic + string([]byte{0, (log - 10) << 3, byte(block), byte(block >> 8), byte(block >> 16)}) + text
	}
	for _, log := range []byte{20, 27, 31} {
		records, _, err := readAll(strings.NewReader(frame(log)), Options{})
		if err != nil || len(records) != 1 {
			t.Errorf("a window of 2^%d: %d records, error %v", log, len(records), err)
		}
	}
	if _, _, err := readAll(strings.NewReader(frame(32)), Options{}); !errors.Is(err, ErrLimit) ||
		err.Error() != "in: the zstd data asks for a window of more than 2048 MiB, which is the limit: decompress it first" {
		t.Errorf("a window of 2^32: %v, want %v", err, ErrLimit)
	}
}

func TestXZPaddingIsAllowed(t *testing.T) {
	content := append(compressions(t)[".xz"](">a\nACGT\n"), 0, 0, 0, 0)
	if records, _, err := readAll(bytes.NewReader(content), Options{}); err != nil || len(records) != 1 {
		t.Errorf("%d records and error %v", len(records), err)
	}
}

func TestFailingDiskIsNotAnEnd(t *testing.T) {
	broken := errors.New("the disk is gone")
	for ext, compress := range compressions(t) {
		content := compress(">a\nACGT\n>b\nACGT\n")
		input := io.MultiReader(bytes.NewReader(content[:len(content)-2]), iotest.ErrReader(broken))
		records, _, err := readAll(input, Options{})
		if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) || !strings.HasPrefix(err.Error(), "in:") {
			t.Errorf("plain%s: %d records, error %v", ext, len(records), err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	folder := t.TempDir()
	empty := filepath.Join(folder, "empty.fa")
	if err := os.WriteFile(empty, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(folder, "locked.fa")
	if err := os.WriteFile(locked, []byte(">a\nACGT\n"), 0); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(folder, "missing.fa")
	for _, tt := range []struct {
		path string
		kind error
		want string
	}{
		{folder, ErrNotSequences, folder + ": this is a folder, not a sequence file"},
		{empty, ErrNoRecords, empty + ": the input holds no records"},
		{missing, fs.ErrNotExist, "open input: open " + missing + ": no such file or directory"},
		{locked, fs.ErrPermission, "open input: open " + locked + ": permission denied"},
	} {
		r, err := Open(tt.path, Options{})
		if err == nil {
			r.Close()
			if tt.path == locked && os.Geteuid() == 0 {
				t.Log("the superuser may read every file: that one is not refused")
				continue
			}
		}
		if !errors.Is(err, tt.kind) || err.Error() != tt.want {
			t.Errorf("the error is %v, want %s", err, tt.want)
		}
	}
}

func TestOpenReadsStandardInput(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	terminal := os.Stdin
	os.Stdin = in
	defer func() { os.Stdin = terminal; in.Close() }()
	content := compressions(t)[".gz"]("@a\nACGT\n+\nIIII\n@b\nAC")
	if _, err := out.Write(content); err != nil {
		t.Fatal(err)
	}
	out.Close()
	r, err := Open("-", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if record, err := r.Read(); err != nil || string(record.Seq) != "ACGT" {
		t.Errorf("the first record is %q, error %v", record.Seq, err)
	}
	if _, err := r.Read(); !errors.Is(err, ErrTruncated) || !strings.HasPrefix(err.Error(), `stdin:5: record "b": `) {
		t.Errorf("the second gives error %v", err)
	}
}

// TestOpenTakesPathsLiterally checks that Open takes its argument as the path of a file: it runs no command, fetches no
// address and does not expand "~".
func TestOpenTakesPathsLiterally(t *testing.T) {
	for _, path := range []string{"|echo >a", "http://127.0.0.1:1/a.fa", "~/a.fa", ""} {
		if _, err := Open(path, Options{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, want %v", path, err, fs.ErrNotExist)
		}
	}
}

func TestClosingEarlyLeavesNoGoroutine(t *testing.T) {
	for _, ext := range []string{"", ".gz", ".zst"} {
		compress := compressions(t)[ext]
		path := filepath.Join(t.TempDir(), "in")
		var text strings.Builder
		for i := range 40_000 {
			fmt.Fprintf(&text, ">%d\nACGTTGCATTACG%d\n", i, i)
		}
		if err := os.WriteFile(path, compress(text.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		before := runtime.NumGoroutine()
		for range 5 {
			r, err := Open(path, Options{Alphabet: DNA, OnBad: BadSkip})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("plain%s: %d goroutines, %d before", ext, runtime.NumGoroutine(), before)
			}
		}
	}
}
