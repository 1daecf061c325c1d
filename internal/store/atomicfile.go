package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// fileSystem is what the package asks of the disk; tests put one in its place that fails on demand.
type fileSystem interface {
	mkdirAll(dir string) error
	create(path string) (file, error) // for reading and writing; an error if it exists
	rename(from, to string) error
	remove(path string) error
	syncDir(dir string) error
	openLog(path string) (logFile, error) // for reading and appending, created if needed, locked until it is closed
	truncate(path string, size int64) error
}

type file interface {
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// logFile is a file that grows at its end.
type logFile interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
}

type osFS struct{}

func (osFS) mkdirAll(dir string) error    { return os.MkdirAll(dir, 0o777) }
func (osFS) rename(from, to string) error { return os.Rename(from, to) }
func (osFS) remove(path string) error     { return os.Remove(path) }

func (osFS) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	claim(f) // for RemoveLeftovers; without locks nobody takes it for one
	return f, nil
}

func (osFS) openLog(path string) (logFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	waitForLock(f)
	return f, nil
}

func (osFS) truncate(path string, size int64) error { return os.Truncate(path, size) }

func (osFS) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some network file systems cannot sync a folder and say so; the rename itself has succeeded.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// fileError is a failed operation on a file or folder.
type fileError struct {
	op, path string
	cause    error
}

func (e *fileError) Error() string { return e.op + " " + e.path + ": " + e.cause.Error() }
func (e *fileError) Unwrap() error { return e.cause }

// ioError describes a failed operation on path. The path that err itself names is dropped: it is mostly that of a
// temporary file, which means nothing to a user.
func ioError(op, path string, err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.As(err, &pathErr):
		err = pathErr.Err
	case errors.As(err, &linkErr):
		err = linkErr.Err
	}
	return &fileError{op, path, err}
}

// bufferSize is the size in bytes of the writes that reach the disk.
const bufferSize = 256 << 10

// atomicFile is a file under construction: its bytes go to a hidden temporary file beside the final path.
type atomicFile struct {
	fs    fileSystem
	final string
	temp  string
	f     file // nil once closed
	buf   *bufio.Writer
	sum   hash.Hash // nil when the digest cannot follow the writes, because the start of the file comes last
	size  int64     // bytes accepted by Write
}

// createTemp starts a file for the path final. A file that will be changed elsewhere than at its end is patched.
func createTemp(fsys fileSystem, final string, patched bool) (*atomicFile, error) {
	dir, name := filepath.Split(final)
	a := &atomicFile{fs: fsys, final: final}
	const attempts = 16 // each draws 64 random bits: a second attempt is already unlikely
	var err error
	for range attempts {
		a.temp = fmt.Sprintf("%s.%s.tmp-%016x", dir, name, rand.Uint64())
		if a.f, err = fsys.create(a.temp); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return nil, ioError("create", final, err)
	}
	if !patched {
		a.sum = sha256.New()
	}
	a.buf = bufio.NewWriterSize(sink{a}, bufferSize)
	return a, nil
}

// sink takes the buffered bytes of a file to the disk and the digest.
type sink struct{ a *atomicFile }

func (s sink) Write(p []byte) (int, error) {
	n, err := s.a.f.Write(p)
	if err != nil {
		return n, ioError("write", s.a.final, err)
	}
	if s.a.sum != nil {
		s.a.sum.Write(p)
	}
	return n, nil
}

// Write appends p. Errors name the final path.
func (a *atomicFile) Write(p []byte) (int, error) {
	n, err := a.buf.Write(p)
	a.size += int64(n)
	return n, err
}

// WriteString appends s.
func (a *atomicFile) WriteString(s string) (int, error) {
	n, err := a.buf.WriteString(s)
	a.size += int64(n)
	return n, err
}

// writeAt changes bytes of a patched file, past its end too. Appending with Write is over then.
func (a *atomicFile) writeAt(p []byte, offset int64) error {
	if err := a.buf.Flush(); err != nil {
		return err
	}
	if _, err := a.f.WriteAt(p, offset); err != nil {
		return ioError("write", a.final, err)
	}
	a.size = max(a.size, offset+int64(len(p)))
	return nil
}

// readAt fills p from the bytes written so far.
func (a *atomicFile) readAt(p []byte, offset int64) error {
	if err := a.buf.Flush(); err != nil {
		return err
	}
	if _, err := io.ReadFull(io.NewSectionReader(a.f, offset, int64(len(p))), p); err != nil {
		return ioError("read back", a.final, err)
	}
	return nil
}

// copyTo writes everything written so far to w.
func (a *atomicFile) copyTo(w io.Writer) error {
	chunk := make([]byte, bufferSize)
	for from := int64(0); from < a.size; from += bufferSize {
		part := chunk[:min(bufferSize, a.size-from)]
		if err := a.readAt(part, from); err != nil {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// patchWriter writes to a patched file from a given offset on.
type patchWriter struct {
	a  *atomicFile
	at int64
}

func (w *patchWriter) Write(p []byte) (int, error) {
	if err := w.a.writeAt(p, w.at); err != nil {
		return 0, err
	}
	w.at += int64(len(p))
	return len(p), nil
}

// seal writes out, syncs and closes the file and returns its description.
func (a *atomicFile) seal() (File, error) {
	if err := a.buf.Flush(); err != nil {
		return File{}, err
	}
	if a.sum == nil {
		a.sum = sha256.New()
		read := io.NewSectionReader(a.f, 0, a.size)
		if n, err := io.CopyBuffer(a.sum, read, make([]byte, bufferSize)); err != nil {
			return File{}, ioError("read back", a.final, err)
		} else if n != a.size {
			return File{}, ioError("read back", a.final, io.ErrUnexpectedEOF)
		}
	}
	if err := a.f.Sync(); err != nil {
		return File{}, ioError("write", a.final, err)
	}
	f := a.f
	a.f = nil
	if err := f.Close(); err != nil {
		return File{}, ioError("write", a.final, err)
	}
	return File{Path: a.final, Size: a.size, SHA256: hex.EncodeToString(a.sum.Sum(nil))}, nil
}

// publish renames a sealed file into place.
func (a *atomicFile) publish() error {
	if err := a.fs.rename(a.temp, a.final); err != nil {
		return ioError("write", a.final, err)
	}
	a.temp = ""
	return nil
}

// discard closes and removes the temporary file; it does nothing when there is none any more.
func (a *atomicFile) discard() error {
	if a.f != nil {
		// What could not be written back is thrown away anyway.
		_ = a.f.Close()
		a.f = nil
	}
	if a.temp == "" {
		return nil
	}
	if err := a.fs.remove(a.temp); err != nil {
		return ioError("remove temporary file", a.temp, err)
	}
	a.temp = ""
	return nil
}

// fileSet is the files of one output: those that get a final name and scratch files that never do.
type fileSet struct {
	fs      fileSystem
	finals  []*atomicFile // in the order of Spec.Paths
	scratch []*atomicFile
}

// create adds a file that commit will rename to path.
func (s *fileSet) create(path string, patched bool) (*atomicFile, error) {
	a, err := createTemp(s.fs, path, patched)
	if err == nil {
		s.finals = append(s.finals, a)
	}
	return a, err
}

// createScratch adds a file that holds bytes on their way to path.
func (s *fileSet) createScratch(path string) (*atomicFile, error) {
	a, err := createTemp(s.fs, path, true)
	if err == nil {
		s.scratch = append(s.scratch, a)
	}
	return a, err
}

// commit completes every file before the first gets its final name, and names the first of the set last.
func (s *fileSet) commit() ([]File, error) {
	for _, a := range s.scratch {
		if err := a.discard(); err != nil {
			return nil, err
		}
	}
	files := make([]File, len(s.finals))
	for i, a := range s.finals {
		var err error
		if files[i], err = a.seal(); err != nil {
			return nil, err
		}
	}
	for _, a := range slices.Backward(s.finals) {
		if err := a.publish(); err != nil {
			return nil, err
		}
	}
	dir := filepath.Dir(s.finals[0].final)
	if err := s.fs.syncDir(dir); err != nil {
		return nil, ioError("sync folder", dir, err)
	}
	return files, nil
}

// discard removes whatever has no final name yet.
func (s *fileSet) discard() error {
	var errs []error
	for _, a := range slices.Concat(s.finals, s.scratch) {
		errs = append(errs, a.discard())
	}
	return errors.Join(errs...)
}
