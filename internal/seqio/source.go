package seqio

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const (
	streamBuffer  = 64 << 10
	byteOrderMark = "\ufeff"
)

// First bytes of compressed data.
const (
	gzipMagic  = "\x1f\x8b"
	zstdMagic  = "\x28\xb5\x2f\xfd"
	xzMagic    = "\xfd7zXZ\x00"
	bzip2Magic = "BZh"
	// skippableMagic begins a skippable frame of Zstandard, with which files of pzstd begin. The lower four bits of the
	// first byte may be any.
	skippableMagic = "\x50\x2a\x4d\x18"
)

// xzFooterMagic is at the end of every xz stream, before any padding with zeros. source checks for it, because the
// library that decodes xz returns no error if the input ends before the index of a stream, or inside the header of a
// later stream.
const xzFooterMagic = "YZ"

// source reads the decompressed content of an input. disk hashes the bytes of the input before decompression. A source
// starts no goroutine.
type source struct {
	content     io.Reader
	disk        *diskReader
	packed      *bufio.Reader // reads from disk; nil for a part without bytes
	text        int64         // number of decompressed bytes that Read has returned
	compression string        // "gzip", "xz", "zstd", "bzip2", or empty
	xz          *xzBlocks     // reads the xz data, which may be inside gzip; nil if there is none
	blocked     bool          // whether the input is compressed by bgzip, and by nothing else
	lastBlock   *members      // reads the last block of a file of bgzip; nil for other inputs and other parts of a file
	begun       bool          // the first bytes were read
	close       func()        // frees the decompressor
}

// newSource recognises the compression of r by its first bytes. If r is gzip data, newSource also recognises a second
// compression inside it. It returns the errors of explain.
func newSource(r io.Reader) (*source, error) {
	s := &source{disk: &diskReader{r: r, hash: sha256.New()}, close: func() {}}
	s.packed = bufio.NewReaderSize(s.disk, streamBuffer)
	header, _ := s.packed.Peek(blockHeader) // the next read returns any error again
	blocked := len(header) == blockHeader && blockLength(header) > 0
	var err error
	s.compression, err = s.decompress(s.packed)
	if err == nil && s.compression == "gzip" {
		outer, inner := s.content.(*members), ""
		inner, err = s.decompress(bufio.NewReader(strict{outer}))
		if s.blocked = blocked && inner == ""; s.blocked {
			s.lastBlock = outer
		}
	}
	if err != nil {
		return nil, s.explain(err)
	}
	return s, nil
}

// decompress recognises the compression of packed by its first bytes and sets s.content to the decompressed content.
func (s *source) decompress(packed *bufio.Reader) (compression string, err error) {
	magic, _ := packed.Peek(len(xzMagic)) // the next read returns any error again
	switch is := func(m string) bool { return strings.HasPrefix(string(magic), m) }; {
	case is(gzipMagic):
		s.content, err = newMembers(packed)
		return "gzip", err
	case is(zstdMagic), len(magic) > 3 && magic[0]&0xf0 == skippableMagic[0] && string(magic[1:4]) == skippableMagic[1:]:
		z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err == nil {
			s.content, s.close = z, z.Close
		}
		return "zstd", err
	case is(xzMagic):
		s.xz = &xzBlocks{packed: packed}
		s.content, err = xz.NewReader(s.xz)
		return "xz", err
	case is(bzip2Magic):
		s.content = bzip2.NewReader(packed)
		return "bzip2", nil
	}
	s.content = packed
	return "", nil
}

// strict is a reader that returns another error in place of io.ErrUnexpectedEOF, which the decoder of Zstandard takes
// for the end of the data.
type strict struct{ io.Reader }

func (s strict) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = errors.New(io.ErrUnexpectedEOF.Error())
	}
	return n, err
}

// cutShort reports whether a file of bgzip, which was read to its end, lacks the empty block with which bgzip ends a
// file.
func (s *source) cutShort() bool { return s.lastBlock != nil && !s.lastBlock.empty }

// explain returns an error for a failed read of the content. It says whether reading the input failed, the data is
// damaged, or the data exceeds a limit.
func (s *source) explain(err error) error {
	switch err := zstdLimit(err); {
	case errors.Is(err, ErrLimit):
		return err
	case s.disk.err != nil:
		return fmt.Errorf("reading failed: %w", s.disk.err)
	case s.xz != nil && strings.Contains(err.Error(), "unsupported filter"):
		return &limitError{"the xz data has a filter other than LZMA2: decompress it first"}
	case s.compression != "":
		return &damage{compression: s.compression, cause: err}
	}
	return fmt.Errorf("reading failed: %w", err)
}

// damage is the error for compressed data that cannot be decompressed. It matches ErrDamaged in errors.Is.
type damage struct {
	compression string
	cause       error
}

func (d *damage) Error() string {
	var garbage *trailingBytes
	if errors.As(d.cause, &garbage) {
		return fmt.Sprintf("the %s data is complete, but %v", d.compression, garbage)
	}
	return fmt.Sprintf("the %s data is damaged, cut short or empty: %v", d.compression, d.cause)
}

func (d *damage) Is(target error) bool { return target == ErrDamaged }

func (d *damage) Unwrap() error { return d.cause }

// Read returns decompressed bytes. It removes a byte order mark of three bytes at the beginning of the content; in the
// first call p must have room for the mark. Read returns the errors of explain.
func (s *source) Read(p []byte) (n int, err error) {
	defer func() { s.text += int64(n) }()
	n, err = s.content.Read(p)
	if !s.begun {
		for n < len(byteOrderMark) && err == nil {
			var more int
			more, err = s.content.Read(p[n:])
			n += more
		}
		if n == 0 && err == io.EOF && s.compression != "" && s.compression != "gzip" {
			return 0, s.explain(errors.New("nothing could be decompressed"))
		}
		s.begun = true
		n = copy(p, bytes.TrimPrefix(p[:n], []byte(byteOrderMark)))
	}
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, s.explain(err)
	case s.xz != nil && string(s.xz.tail[:]) != xzFooterMagic:
		return n, &damage{compression: "xz", cause: io.ErrUnexpectedEOF}
	}
	return n, io.EOF
}

// position returns approximately how many stored, possibly compressed bytes correspond to the text that Read has
// returned. The last bytes of this text do not count; unused is their number.
func (s *source) position(unused int) int64 {
	at := s.disk.size
	if s.packed != nil {
		at -= int64(s.packed.Buffered())
	}
	if unused == 0 {
		return at
	}
	return at - int64(float64(at)*float64(unused)/float64(s.text))
}

// diskReader counts and hashes the bytes that are read from r, which are not decompressed yet.
type diskReader struct {
	r    io.Reader
	hash hash.Hash // nil if the digest is not needed
	size int64
	err  error // the error that ended the reading, unless it is io.EOF
}

func (d *diskReader) Read(p []byte) (int, error) {
	n, err := d.readSome(p)
	if d.hash != nil {
		d.hash.Write(p[:n])
	}
	d.size += int64(n)
	if err != nil && err != io.EOF {
		d.err = err
	}
	return n, err
}

// readSome reads at least one byte or returns an error. Some decompressors cannot handle a read that returns no byte
// and no error.
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
	return hex.EncodeToString(d.hash.Sum(nil)), d.size
}
