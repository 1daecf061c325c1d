package seqio

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// eofBlock is the empty block that bgzip writes at the end of a file.
const eofBlock = "\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x06\x00\x42\x43\x02\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// bgzip compresses content as the program bgzip does, in blocks. Each call of length gives the number of bytes of
// content in the next block.
func bgzip(content []byte, length func() int) []byte {
	var file []byte
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // cannot fail: the level is valid
	for len(content) > 0 {
		n := min(length(), len(content))
		b.Reset()
		z.Reset(&b)
		z.Extra = []byte("BC\x02\x00__")
		_, _ = z.Write(content[:n]) // writing to a bytes.Buffer cannot fail
		_ = z.Close()
		binary.LittleEndian.PutUint16(b.Bytes()[16:], uint16(b.Len()-1))
		file, content = append(file, b.Bytes()...), content[n:]
	}
	return append(file, eofBlock...)
}

// someLengths returns a function that gives bgzip random lengths of blocks, from 0 to 1,000 bytes. Records of
// randomFile may be longer than a block.
func someLengths(rng *rand.Rand) func() int {
	most := 1 + rng.IntN(1000)
	return func() int { return max(0, rng.IntN(most+most/5+1)-most/5) }
}

// TestBlocksOfBgzip compresses a file with the program bgzip and reads it in three parts. Together the parts must have
// all records of the file.
func TestBlocksOfBgzip(t *testing.T) {
	program, err := exec.LookPath("bgzip")
	if err != nil {
		t.Skip("bgzip is not installed: ", err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	path := filepath.Join(t.TempDir(), "x.fa")
	if err := os.WriteFile(path, randomFile(rng, false, 3000), 0o666); err != nil {
		t.Fatal(err)
	}
	want, _, err := readFile(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path += ".gz"
	_, whole, err := readFile(path, Options{})
	if err != nil || whole.Interleaved() {
		t.Fatalf("interleaved: %v, %v", whole.Interleaved(), err)
	}
	got, parts, err := readParts(path, whole, []int64{whole.Size / 3, whole.Size * 2 / 3})
	if err != nil || !sameRecords(got, want) || len(parts[1]) == 0 {
		t.Errorf("%d of %d records, %d in the middle, %v", len(got), len(want), len(parts[1]), err)
	}
}

// TestOnlyFilesOfBgzipAreCut checks which files are cut into consecutive parts: plain files and files that begin like
// those of bgzip. Other gzip files must be interleaved: each part reads the whole file and returns some of its records.
// In each case two parts together must have all records. Only a file without the last block of bgzip may be cut short.
func TestOnlyFilesOfBgzipAreCut(t *testing.T) {
	text := []byte(strings.Repeat(">a\nACGTTGCATCGATCGATCGATCAGCA\n", 10))
	all := func() int { return len(text) }
	otherField := bgzip(text, all)
	copy(otherField[12:], "RA")
	for name, c := range map[string]struct {
		content []byte
		cut     bool
	}{
		"plain":           {text, true},
		"bgzip":           {bgzip(text, all), true},
		"gzip":            {packed(text), false},
		"another field":   {otherField, false},
		"gzip in bgzip":   {bgzip(packed(text), all), false},
		"bgzip and gzip":  {append(bgzip(text, all), packed(text)...), true},
		"without the end": {bgzip(text, all)[:len(bgzip(text, all))-len(eofBlock)], true},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, c.content, 0o666); err != nil {
			t.Fatal(err)
		}
		want, whole, err := readFile(path, Options{Duplicates: DuplicateKeep})
		if err != nil || whole.Interleaved() == c.cut {
			t.Errorf("%s: interleaved %v, %v", name, whole.Interleaved(), err)
		}
		cutShort := 0
		for _, to := range []int64{0, whole.Size / 2, whole.Size} { // the whole file, and its two parts
			p := Part{}
			if to > 0 {
				p = whole
				p.From, p.To = max(0, to-(whole.Size+1)/2), to
			}
			r, err := Open(path, Options{Duplicates: DuplicateKeep, Part: p})
			for err == nil {
				_, err = r.Read()
			}
			if err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
			if r.CutShort() {
				cutShort++
			}
			r.Close()
		}
		if missing := name == "without the end"; name != "bgzip and gzip" && cutShort != map[bool]int{true: 2}[missing] {
			t.Errorf("%s: %d of the readers of the file and its two parts say that the file may be cut short", name, cutShort)
		}
		for at := range whole.Size {
			if got, _, err := readParts(path, whole, []int64{at}); err != nil || !sameRecords(got, want) {
				t.Fatalf("%s, cut at %d: %d of %d records, %v", name, at, len(got), len(want), err)
			}
		}
	}
}

// countingReaderAt counts the bytes that are read from a file.
type countingReaderAt struct {
	io.ReaderAt
	n int64
}

func (c *countingReaderAt) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, at)
	c.n += int64(n)
	return n, err
}

// TestACutReadsLittle cuts a file of bgzip with short records at random offsets. To find the beginning of a part, each
// cut must read at most 5 × 64 KiB, the maximum length of five blocks.
func TestACutReadsLittle(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	content := bgzip(randomLetters(rng, "ACGT\n>>", 2<<20), func() int { return 65280 })
	whole := Part{To: int64(len(content)), Size: int64(len(content)), Compressed: true, blocked: true}
	for range 20 {
		r := &countingReaderAt{ReaderAt: bytes.NewReader(content)}
		cut, err := whole.cut(r, rng.Int64N(whole.Size))
		if err != nil || r.n > 5*maxBlock {
			t.Errorf("a cut at %+v reads %d bytes, %v", cut, r.n, err)
		}
	}
}

// TestADamagedBlock damages one block of a file and reads the file in ten parts. Only one or two parts may fail: the
// part that contains the block, and possibly a part that begins or ends in the block. The error must give the offset of
// the block.
func TestADamagedBlock(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	content := bgzip(randomFile(rng, false, 400), func() int { return 900 })
	path := filepath.Join(t.TempDir(), "x.fa.gz")
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	_, whole, err := readFile(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	at, err := findBlock(bytes.NewReader(content), whole.Size/2, whole.Size)
	if err != nil {
		t.Fatal(err)
	}
	content[at+blockHeader+20] ^= 0x55
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for i := range int64(10) {
		p := whole
		p.From, p.To = whole.Size*i/10, whole.Size*(i+1)/10
		_, _, err := readFile(path, Options{Part: p, Duplicates: DuplicateKeep})
		if err == nil {
			continue
		}
		failed++
		if want := fmt.Sprintf("in the block at byte %d: ", at); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("part %d: %v, want an error with %q", i, err, want)
		}
	}
	if failed == 0 || failed > 2 {
		t.Errorf("%d of 10 parts failed", failed)
	}
}

// TestDigestsOfParts checks that Reader.Digest of a part is the digest of the bytes that Part.Open returns.
func TestDigestsOfParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	path := filepath.Join(t.TempDir(), "x.fa.gz")
	text := proteinRecords(1000, 1000) // even compressed, much larger than a reader's buffer of 64 KiB
	content := bgzip(text, func() int { return rng.IntN(2)*65000 + rng.IntN(1000) })
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	_, whole, err := readFile(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		p := whole
		p.From = rng.Int64N(p.Size)
		p.To = p.From + rng.Int64N(p.Size-p.From)
		part, err := p.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := io.ReadAll(part)
		if err != nil || part.Close() != nil {
			t.Fatal(err)
		}
		r, err := Open(path, Options{Part: p})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for err == nil {
			_, err = r.Read()
		}
		sum, size, err := r.Digest()
		if want := fmt.Sprintf("%x", sha256.Sum256(stored)); sum != want || size != int64(len(stored)) || err != nil {
			t.Errorf("bytes %d to %d: digest of %d bytes, %v; Open returns %d", p.From, p.To, size, err, len(stored))
		}
	}
}

// FuzzBlocks reads a file of bgzip, which may be damaged in one place, as a whole and in two parts. If the whole file
// can be read, the parts must have its records. If the whole file cannot be read, one of the parts must fail.
func FuzzBlocks(f *testing.F) {
	fasta, fastq := strings.Repeat(">a x\r\nACGTACGTTTACG\n>b\nGG\n", 9), strings.Repeat("@a\nACGTA\n+\n@@II+\n", 20)
	f.Add([]byte(fasta), uint16(7), uint16(90), uint16(0), uint8(0))
	f.Add([]byte(fastq), uint16(50), uint16(300), uint16(0), uint8(0))
	f.Add([]byte(fasta), uint16(30), uint16(100), uint16(60), uint8(9))
	f.Add([]byte(fasta+"\x1f\x8b\x08\x04"+eofBlock), uint16(500), uint16(40), uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, length, at, damaged uint16, flip uint8) {
		if len(text) > 1<<16 {
			return
		}
		content := bgzip(text, func() int { return max(int(length), len(text)/200+1) })
		content[int(damaged)%len(content)] ^= flip
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		o := Options{Duplicates: DuplicateKeep, OnBad: BadSkip, Alphabet: DNA}
		r, err := Open(path, o)
		if err != nil {
			return
		}
		whole := Whole(r)
		r.Close()
		if !whole.blocked { // because its first header is damaged
			return
		}
		want, _, wantErr := readFile(path, o)
		var got []Record
		var gotErr error
		for _, limits := range [][2]int64{{0, int64(at) % whole.Size}, {int64(at) % whole.Size, whole.Size}} {
			o.Part = whole
			o.Part.From, o.Part.To = limits[0], limits[1]
			records, _, err := readFile(path, o)
			got, gotErr = append(got, records...), errors.Join(gotErr, err)
		}
		if whole.fastq && (errors.Is(gotErr, ErrTruncated) || errors.Is(gotErr, ErrMalformed)) {
			return // allowed if a record has more than four lines: see TestRecordsOfManyLines
		}
		if (gotErr == nil) != (wantErr == nil) || gotErr == nil && !sameRecords(got, want) {
			t.Errorf("%d records and %v in two parts, %d and %v in one", len(got), gotErr, len(want), wantErr)
		}
	})
}

// FuzzFindBlock checks that findBlock finds the same block as a plain search byte by byte.
func FuzzFindBlock(f *testing.F) {
	f.Add([]byte(eofBlock+eofBlock+"x"+eofBlock), uint16(1), uint16(0))
	f.Add([]byte(eofBlock[:20]+eofBlock), uint16(0), uint16(3))
	f.Add([]byte(eofBlock+eofBlock), uint16(0), uint16(maxBlock-5)) // a header across the end of the first 64 KiB
	f.Fuzz(func(t *testing.T, content []byte, at, padding uint16) {
		content = slices.Concat(make([]byte, padding), content)
		size := len(content)
		header := func(at int) int {
			if at+blockHeader > size || string(content[at:at+4]) != eofBlock[:4] || string(content[at+10:at+16]) != eofBlock[10:16] {
				return 0
			}
			return int(content[at+16]) + int(content[at+17])<<8 + 1
		}
		want := min(int(at), size)
		for ; want < size; want++ {
			if n := header(want); n > 0 && (want+n == size || want+n < size && header(want+n) > 0) {
				break
			}
		}
		got, err := findBlock(bytes.NewReader(content), min(int64(at), int64(size)), int64(size))
		if err != nil || got != int64(want) {
			t.Errorf("a block at %d, %v; want %d", got, err, want)
		}
	})
}
