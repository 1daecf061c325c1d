package weights

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"

	"seqembed/internal/cancel"
	"seqembed/weights/hub"
)

const (
	maxHead = 64       // number of bytes at the beginning of a file by which its format is recognised
	maxText = 64 << 20 // maximum size, in bytes, of an index, config.json or tokenizer.json
)

// file is an open regular file.
type file struct {
	*os.File
	size     int64
	head     []byte    // the first bytes of the file, at most maxHead
	sections []section // ranges of bytes for which the file contains a checksum
}

// section is a range of bytes in a file with the CRC-32 that the file gives for it.
type section struct {
	name     string
	from, to int64
	crc      uint32
}

// legacyTorchMagic is at the beginning of the files that torch.save wrote before PyTorch 1.6. It is the beginning of a
// pickle of the number 0x1950a86a20f9469cfc6c.
var legacyTorchMagic = []byte{0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

// openFile opens a regular file that is not empty. It returns an error for content that is often found in place of a
// checkpoint, such as a web page.
func openFile(path string) (*file, error) {
	info, err := os.Stat(path) // before Open, because opening a pipe would wait for a writer
	switch {
	case err != nil:
		if target, linkErr := os.Readlink(path); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
			// This error is not fs.ErrNotExist, because the link shows that there should be a file.
			return nil, fmt.Errorf("%s is a link to %s, which is missing: download it again", path, target)
		}
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() == 0:
		return nil, fmt.Errorf("%s is empty", path)
	}
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &file{File: opened, size: info.Size(), head: make([]byte, min(info.Size(), maxHead))}
	if err = f.readAt(f.head, 0); err == nil {
		err = f.replaced()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// replaced returns an error if the content of the file is of a kind that is often found where a checkpoint or a JSON
// file should be: a web page that a failed download has left, a Git LFS pointer, gzip data, or PyTorch's old format.
func (f *file) replaced() error {
	text := bytes.ToLower(bytes.TrimLeft(f.head, "\ufeff \t\r\n"))
	switch {
	case bytes.HasPrefix(f.head, legacyTorchMagic):
		return fmt.Errorf("%s is in PyTorch's format from before version 1.6, which is not read; "+
			"load and save it again with a newer PyTorch", f.Name())
	case bytes.HasPrefix(f.head, []byte("\x1f\x8b")):
		return fmt.Errorf("%s is compressed with gzip; decompress it first", f.Name())
	case bytes.HasPrefix(text, []byte("version https://git-lfs")):
		return fmt.Errorf("%s is a Git LFS pointer, not the file itself; `git lfs pull` in its folder fetches it", f.Name())
	case bytes.HasPrefix(text, []byte("<!doctype")), bytes.HasPrefix(text, []byte("<html")), bytes.HasPrefix(text, []byte("<?xml")):
		return fmt.Errorf("%s is a web page; the download went wrong", f.Name())
	}
	return nil
}

// isText reports whether the file begins with UTF-8 text. A safetensors file does not, because it begins with a length
// that contains zero bytes.
func (f *file) isText() bool {
	other := bytes.IndexFunc(f.head, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == utf8.RuneError
	})
	// The end of head may cut a UTF-8 sequence, which is text all the same.
	return other < 0 || other > maxHead-utf8.UTFMax && f.head[other] >= utf8.RuneSelf
}

// isZip reports whether the file begins like a zip archive.
func (f *file) isZip() bool { return bytes.HasPrefix(f.head, []byte("PK\x03\x04")) }

// errShort is the error for a file that has become shorter since it was opened.
var errShort = errors.New("the file became shorter, or its disk failed, while it was read")

// readAt fills b with the bytes at offset.
func (f *file) readAt(b []byte, offset int64) error {
	_, err := f.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", f.Name(), errShort)
	}
	return err
}

// sha256 reads the whole file and returns its SHA-256 in hexadecimal. The error wraps ErrDamaged in two cases: if the
// file is in the folder blobs of a Hugging Face cache and its name is another SHA-256, or if the checksum of a section
// is wrong.
func (f *file) sha256(ctx context.Context) (string, error) {
	h := sha256.New()
	sums := &crcWriter{sections: f.sections}
	n, err := io.Copy(io.MultiWriter(h, sums), cancel.Reader(ctx, io.NewSectionReader(f, 0, f.size)))
	if err == nil && n != f.size {
		err = errShort
	}
	if err != nil {
		return "", fmt.Errorf("hashing %s: %w", f.Name(), err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if blob, name := hub.Blob(f.Name()); blob != "" && name != sum {
		return "", fmt.Errorf("%s: %w: its SHA-256 is %s, and its name says another; delete it and download it again", blob, ErrDamaged, sum)
	}
	if len(sums.damaged) > 0 {
		return "", fmt.Errorf("%s: %w: the checksums of %d of its entries are wrong (%s); copy or download it again",
			f.Name(), ErrDamaged, len(sums.damaged), listed(sums.damaged))
	}
	return sum, nil
}

// crcWriter computes the checksums of the sections of a file while the file is written to it. The sections must be in
// order and must not overlap.
type crcWriter struct {
	sections []section // sections that have not ended
	at       int64
	crc      uint32 // checksum of the part of sections[0] that has been written
	damaged  []string
}

func (w *crcWriter) Write(b []byte) (int, error) {
	end := w.at + int64(len(b))
	for len(w.sections) > 0 && w.sections[0].from < end {
		s := w.sections[0]
		from := max(s.from, w.at)
		part := b[from-w.at : min(s.to, end)-w.at]
		w.crc = crc32.Update(w.crc, crc32.IEEETable, part)
		if s.to > end {
			break
		}
		if w.crc != s.crc {
			w.damaged = append(w.damaged, s.name)
		}
		w.sections, w.crc = w.sections[1:], 0
	}
	w.at = end
	return len(b), nil
}

// ReadText returns the content of a regular file or of a named pipe, of at most maxText bytes. A regular file must not
// be empty, and must not have content that file.replaced refuses, such as a web page.
func ReadText(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		pipe, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer pipe.Close()
		text, err := io.ReadAll(io.LimitReader(pipe, maxText+1))
		if len(text) > maxText {
			return nil, tooLong(path)
		}
		return text, err
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.size > maxText {
		return nil, tooLong(path)
	}
	text := make([]byte, f.size)
	return text, f.readAt(text, 0)
}

func tooLong(path string) error { return fmt.Errorf("%s has more than %d bytes", path, maxText) }
