package seqio

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/shenwei356/xopen"
)

const (
	streamBuffer  = 64 << 10
	maxEmptyReads = 100 // reads in a row that may give neither bytes nor an error
)

// xzFooterMagic ends every xz stream, but for padding with zeros. The xz reader that xopen uses takes a stream that is
// cut before its index, or inside the header of a later stream, for a complete one.
const xzFooterMagic = "YZ"

// source is the decompressed content of an input. It hashes the bytes as they are on disk while they go by.
type source struct {
	content     *xopen.Reader
	disk        *diskReader
	compression string // "gzip", "xz", "zstd", "bzip2", or empty
}

// newSource recognises the compression of r by its first bytes. Its errors are those of a damaged or empty input.
//
// xopen decompresses everything but gzip: its gzip reader takes a stream that is cut just before a checksum, or inside
// the header of a later member, for a complete one.
func newSource(r io.Reader) (*source, error) {
	s := &source{disk: &diskReader{r: r, hash: sha256.New()}}
	buffered := bufio.NewReaderSize(s.disk, streamBuffer)
	s.compression = compressionOf(buffered)

	var content io.Reader = buffered
	if s.compression == "gzip" {
		gz, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, s.explain(err)
		}
		content = gz
	}
	opened, err := xopen.Buf(content)
	if errors.Is(err, xopen.ErrNoContent) {
		return nil, s.explainNothing(content)
	}
	if err != nil {
		return nil, s.explain(err)
	}
	s.content = opened
	return s, nil
}

func compressionOf(b *bufio.Reader) string {
	for _, format := range []struct {
		name string
		is   func(*bufio.Reader) (bool, error)
	}{
		{"gzip", xopen.IsGzip}, {"zstd", xopen.IsZst}, {"xz", xopen.IsXz}, {"bzip2", xopen.IsBzip2},
	} {
		// An error means fewer bytes than the magic has; the read that follows meets the same error.
		if is, err := format.is(b); err == nil && is {
			return format.name
		}
	}
	return ""
}

// explain tells a disk that failed from data that is damaged.
func (s *source) explain(err error) error {
	switch {
	case s.disk.err != nil:
		return fmt.Errorf("reading failed: %w", s.disk.err)
	case s.compression != "":
		return &damage{compression: s.compression, cause: err}
	}
	return fmt.Errorf("reading failed: %w", err)
}

// explainNothing says why xopen found nothing at all in content: it does not tell an empty stream from one that fails at
// once. What xopen itself decompresses is lost by then.
func (s *source) explainNothing(content io.Reader) error {
	if s.compression != "" && s.compression != "gzip" {
		return s.explain(errors.New("nothing could be decompressed"))
	}
	if _, err := io.ReadFull(content, make([]byte, 1)); err != io.EOF {
		return s.explain(err)
	}
	return ErrNoRecords
}

// damage is an ErrDamaged with its cause.
type damage struct {
	compression string
	cause       error
}

func (d *damage) Error() string {
	return fmt.Sprintf("the %s data is damaged, cut short or empty: %v", d.compression, d.cause)
}

func (d *damage) Is(target error) bool { return target == ErrDamaged }

func (d *damage) Unwrap() error { return d.cause }

// Read returns decompressed bytes; its errors say whether the disk or the data failed.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.content.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, s.explain(err)
	case s.compression == "xz" && string(s.disk.tail[:]) != xzFooterMagic:
		return n, s.explain(io.ErrUnexpectedEOF)
	}
	return n, io.EOF
}

// stop ends the goroutines of a decompressor that was not read to its end: with the disk shut, the little that is left
// in its buffers is followed by an error. Only for inputs that cannot block, such as files.
func (s *source) stop() {
	s.disk.shut.Store(true)
	// Both errors only repeat that the reading was broken off.
	_, _ = io.Copy(io.Discard, s)
	_ = s.content.Close()
}

// diskReader counts and hashes the bytes that it passes on. Decompressors read it from one goroutine at a time.
type diskReader struct {
	r    io.Reader
	hash hash.Hash
	size atomic.Int64
	tail [2]byte // the last bytes, zeros at the end left out
	err  error   // what ended the reading, other than io.EOF
	shut atomic.Bool
}

func (d *diskReader) Read(p []byte) (int, error) {
	if d.shut.Load() {
		return 0, os.ErrClosed
	}
	n, err := d.readSome(p)
	d.hash.Write(p[:n])
	d.size.Add(int64(n))
	for _, b := range lastBytes(bytes.TrimRight(p[:n], "\x00"), len(d.tail)) {
		d.tail = [2]byte{d.tail[1], b}
	}
	if err != nil && err != io.EOF {
		d.err = err
	}
	return n, err
}

// readSome waits for bytes or an error; not every decompressor copes with a read that gives neither.
func (d *diskReader) readSome(p []byte) (int, error) {
	for range maxEmptyReads {
		if n, err := d.r.Read(p); n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

func lastBytes(p []byte, n int) []byte { return p[max(0, len(p)-n):] }

func (d *diskReader) digest() (sum string, size int64) {
	return hex.EncodeToString(d.hash.Sum(nil)), d.size.Load()
}

// HashFile returns the SHA-256, in hexadecimal, and the size in bytes of a file as it is on disk: what Reader.Digest says
// of it after reading, for those who must know without reading its records.
func HashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, fmt.Errorf("hash input: %w", err)
	}
	defer f.Close()
	d := &diskReader{r: f, hash: sha256.New()}
	if _, err := io.Copy(io.Discard, d); err != nil {
		return "", 0, fmt.Errorf("hash input: %w", err)
	}
	sum, size = d.digest()
	return sum, size, nil
}
