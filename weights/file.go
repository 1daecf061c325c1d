package weights

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	maxHead = 64       // bytes of a file that its format is recognised by
	maxText = 64 << 20 // bytes of the largest index or config.json that is read
)

// file is an open regular file.
type file struct {
	*os.File
	size int64
	head []byte // its first bytes, at most maxHead
}

// legacyTorchMagic starts the files that torch.save wrote before version 1.6: a pickle of the number
// 0x1950a86a20f9469cfc6c.
var legacyTorchMagic = []byte{0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

// openFile opens a regular file that is not empty. It returns an error for files of other kinds that often have the
// name of a checkpoint.
func openFile(path string) (*file, error) {
	info, err := os.Stat(path) // before Open, because opening a pipe would wait for a writer
	switch {
	case err != nil:
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
	f := &file{opened, info.Size(), make([]byte, min(info.Size(), maxHead))}
	if err = f.readAt(f.head, 0); err == nil {
		err = f.notCheckpoint()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// notCheckpoint returns an error if the content is not that of a checkpoint. The name of a file is no evidence: a
// failed download often leaves a web page under the right name.
func (f *file) notCheckpoint() error {
	text := bytes.ToLower(bytes.TrimLeft(f.head, "\ufeff \t\r\n"))
	switch {
	case bytes.HasPrefix(f.head, legacyTorchMagic):
		return fmt.Errorf("%s is in PyTorch's format from before version 1.6, which is not read; "+
			"load and save it again with a newer PyTorch", f.Name())
	case bytes.HasPrefix(text, []byte("version https://git-lfs")):
		return fmt.Errorf("%s is a Git LFS pointer, not the checkpoint itself; `git lfs pull` in its folder fetches it", f.Name())
	case bytes.HasPrefix(text, []byte("<!doctype")), bytes.HasPrefix(text, []byte("<html")), bytes.HasPrefix(text, []byte("<?xml")):
		return fmt.Errorf("%s is a web page, not a checkpoint; the download went wrong", f.Name())
	}
	return nil
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

// sha256 reads the whole file and returns its SHA-256 in hexadecimal.
func (f *file) sha256() (string, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(f, 0, f.size))
	if err == nil && n != f.size {
		err = errShort
	}
	if err != nil {
		return "", fmt.Errorf("hashing %s: %w", f.Name(), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readText reads a whole regular file of at most maxText bytes.
func readText(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.size > maxText {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxText)
	}
	text := make([]byte, f.size)
	return text, f.readAt(text, 0)
}
