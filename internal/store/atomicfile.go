package store

import (
	"bufio"
	"context"
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
	"time"
)

// fileSystem is a set of file operations that the package uses. Tests replace it to make operations fail.
type fileSystem interface {
	create(path string) (file, error) // for reading and writing; fails if path exists
	rename(from, to string) error
	remove(path string) error
	syncDir(dir string) error
	// openLog opens a file for reading and appending, and creates the file if needed. On a file system with locks, it
	// waits for the lock of the file, which is held until the file is closed.
	openLog(ctx context.Context, path string) (logFile, error)
	truncate(path string, size int64) error
	syncTree(dir string) error // writes all files of a folder to the disk
}

type file interface {
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// logFile is a file to which content is only appended: the manifest.
type logFile interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
}

// osFS is the real file system. For tests, noLocks makes it behave like a file system without locks.
type osFS struct{ noLocks bool }

func (osFS) rename(from, to string) error { return os.Rename(from, to) }
func (osFS) remove(path string) error     { return os.Remove(path) }

// create creates a file and, on a file system with locks, locks it. RemoveLeftovers regards an unlocked temporary file
// as left by a killed run, and removes it.
func (s osFS) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	err = s.tryLock(f, false)
	if errors.Is(err, ErrLocked) || err == nil && !isAt(f, path) { // another process has locked or removed the file
		f.Close()
		return nil, fs.ErrExist
	}
	return f, nil
}

func (s osFS) openLog(ctx context.Context, path string) (logFile, error) {
	f, err := s.openLocked(ctx, path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) syncTree(dir string) error { return syncTree(dir) }

func (osFS) truncate(path string, size int64) error { return os.Truncate(path, size) }

func (osFS) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some network file systems cannot sync a folder and return EINVAL or ErrUnsupported. These errors are ignored,
	// because the change in the folder, such as a rename, has succeeded.
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

// ioError returns a fileError for a failed operation on path. It drops the path that err contains, which may be that of
// a temporary file and then means nothing to a user.
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

// bufferSize is the size in bytes of the buffers for reading and writing files.
const bufferSize = 256 << 10

// atomicFile is a file under construction. Its content is written to the hidden temporary file temp, in the folder of
// the path final. publish renames temp to final.
type atomicFile struct {
	fs    fileSystem
	final string
	temp  string
	f     file // nil after it is closed
	buf   *bufio.Writer
	sum   hash.Hash // SHA-256 of the written bytes; nil for a rewritable file until seal reads it
	size  int64     // number of bytes in the file, including buffered ones
}

// createUnique creates and locks a file. The path of the file is prefix, followed by 16 random hexadecimal digits.
// createUnique tries again if another process, in RemoveLeftovers or readClaim, locks the file first. Random pauses
// keep the two processes from colliding at every attempt.
func createUnique(fsys fileSystem, prefix string) (f file, path string, err error) {
	const attempts = 16
	for range attempts {
		path = fmt.Sprintf("%s%016x", prefix, rand.Uint64())
		if f, err = fsys.create(path); !errors.Is(err, fs.ErrExist) {
			break
		}
		time.Sleep(rand.N(10 * time.Millisecond))
	}
	return f, path, err
}

// createTemp creates the temporary file of an atomicFile for the path final. If rewritable is set, bytes that have been
// written may be changed later.
func createTemp(fsys fileSystem, final string, rewritable bool) (*atomicFile, error) {
	dir, name := filepath.Split(final)
	a := &atomicFile{fs: fsys, final: final}
	var err error
	if a.f, a.temp, err = createUnique(fsys, dir+"."+name+".tmp-"); err != nil {
		return nil, ioError("create", final, err)
	}
	if !rewritable {
		a.sum = sha256.New()
	}
	a.buf = bufio.NewWriterSize(sink{a}, bufferSize)
	return a, nil
}

// sink writes the buffered bytes of an atomicFile to its temporary file and, if there is one, to its digest.
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

// Write appends p. Its errors name the final path.
func (a *atomicFile) Write(p []byte) (int, error) {
	n, err := a.buf.Write(p)
	a.size += int64(n)
	return n, err
}

// written returns the number of bytes in the file.
func (a *atomicFile) written() int64 { return a.size }

// WriteString appends s.
func (a *atomicFile) WriteString(s string) (int, error) {
	n, err := a.buf.WriteString(s)
	a.size += int64(n)
	return n, err
}

// writeAt writes p at an offset, which may lie beyond the end of the file. The file must have been created as
// rewritable (see createTemp). Once writeAt has made the file longer, Write must not be called any more.
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

// readAt fills p with the bytes of the file from offset on, including buffered ones.
func (a *atomicFile) readAt(p []byte, offset int64) error {
	if err := a.buf.Flush(); err != nil {
		return err
	}
	if _, err := io.ReadFull(io.NewSectionReader(a.f, offset, int64(len(p))), p); err != nil {
		return ioError("read back", a.final, err)
	}
	return nil
}

// copyTo copies the whole content, including the bytes that are still buffered, to w.
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

// offsetWriter is an io.Writer that writes into a file from an offset on. The file must be rewritable (see createTemp).
type offsetWriter struct {
	a  *atomicFile
	at int64
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	if err := w.a.writeAt(p, w.at); err != nil {
		return 0, err
	}
	w.at += int64(len(p))
	return len(p), nil
}

// seal flushes and syncs the file, and returns its final path, size and digest. On systems with locks, the file stays
// locked until publish has renamed it.
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
	if !keepsLocks {
		if err := a.close(); err != nil {
			return File{}, err
		}
	}
	return File{Path: a.final, Size: a.size, SHA256: hex.EncodeToString(a.sum.Sum(nil))}, nil
}

// publish renames a sealed file to its final path.
func (a *atomicFile) publish() error {
	if err := a.fs.rename(a.temp, a.final); err != nil {
		return ioError("write", a.final, err)
	}
	a.temp = ""
	return a.close()
}

// close closes the file if it is open.
func (a *atomicFile) close() error {
	if a.f == nil {
		return nil
	}
	f := a.f
	a.f = nil
	if err := f.Close(); err != nil {
		return ioError("write", a.final, err)
	}
	return nil
}

// discard closes and removes the temporary file. It removes nothing if the file was renamed or removed before.
func (a *atomicFile) discard() error {
	_ = a.close() // an error does not matter, because the content is not needed
	if a.temp == "" {
		return nil
	}
	if err := a.fs.remove(a.temp); err != nil {
		return ioError("remove temporary file", a.temp, err)
	}
	a.temp = ""
	return nil
}

// pending is a file or folder under construction.
type pending interface {
	seal() (File, error) // writes the whole content to the disk
	publish() error      // renames the file or folder to its final path
	discard() error      // removes the file or folder, unless publish has renamed it
}

// fileSet is the set of files of one output while it is written.
type fileSet struct {
	fs       fileSystem
	finals   []pending     // files and folders that commit renames to their final paths, the main file first
	scratch  []*atomicFile // temporary files, which commit removes
	replaced []string      // paths of other files of an earlier output, which commit removes before it renames a file
}

// create adds a file that commit will rename to path.
func (s *fileSet) create(path string, rewritable bool) (*atomicFile, error) {
	a, err := createTemp(s.fs, path, rewritable)
	if err == nil {
		s.finals = append(s.finals, a)
	}
	return a, err
}

// createFolder adds a folder, for files with the extension ext, that commit will rename to path.
func (s *fileSet) createFolder(path, ext string) (*atomicFolder, error) {
	d, err := createTempFolder(s.fs, path, ext)
	if err == nil {
		s.finals = append(s.finals, d)
	}
	return d, err
}

// createScratch adds a temporary file for content that will later be copied to path.
func (s *fileSet) createScratch(path string) (*atomicFile, error) {
	a, err := createTemp(s.fs, path, true)
	if err == nil {
		s.scratch = append(s.scratch, a)
	}
	return a, err
}

// commit writes all files to the disk and then renames them to their final paths, the main file (the first one) last.
// If there are several files, commit first compares them with those of an earlier output. If all are equal, the earlier
// files stay. If not, commit removes the main file of the earlier output before it renames a new file. So while the
// main file exists, all files of the output exist and belong together.
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
	dir := filepath.Dir(files[0].Path)
	earlier := noFiles
	if len(s.finals) > 1 {
		earlier = s.earlier(files)
	}
	if earlier == otherFiles {
		s.replaced = append(s.replaced, files[0].Path)
	}
	for _, path := range s.replaced {
		if err := s.removeEarlier(path); err != nil {
			return nil, err
		}
	}
	if earlier == sameFiles {
		return files, s.discard()
	}
	for _, a := range slices.Backward(s.finals) {
		if err := a.publish(); err != nil {
			return nil, err
		}
	}
	return files, syncFolder(s.fs, dir)
}

// earlierFiles is the state of an output that is about to be replaced.
type earlierFiles int

const (
	noFiles    earlierFiles = iota // the main file does not exist
	otherFiles                     // some files differ from the new ones, or are missing
	sameFiles                      // all files equal the new ones
)

// earlier compares the new files with the files of an earlier output at the same paths. Equal files must stay: another
// run may have just written them, and the manifest may already list them.
func (s *fileSet) earlier(files []File) earlierFiles {
	if _, err := os.Lstat(files[0].Path); errors.Is(err, fs.ErrNotExist) {
		return noFiles
	}
	for _, f := range files {
		if sum, err := HashFile(context.Background(), f.Path); err != nil || sum != f.SHA256 {
			return otherFiles
		}
	}
	return sameFiles
}

// removeEarlier removes a file of an earlier output, if there is one. It syncs the folder, so that the removal reaches
// the disk before the next rename.
func (s *fileSet) removeEarlier(path string) error {
	err := s.fs.remove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return ioError("replace", path, err)
	}
	return syncFolder(s.fs, filepath.Dir(path))
}

func syncFolder(fsys fileSystem, dir string) error {
	if err := fsys.syncDir(dir); err != nil {
		return ioError("sync folder", dir, err)
	}
	return nil
}

// replaceFile replaces the file at path: it writes the whole content to a temporary file, which it renames to path.
func replaceFile(fsys fileSystem, path string, content []byte) error {
	s := fileSet{fs: fsys}
	f, err := s.create(path, false)
	if err != nil {
		return err
	}
	defer s.discard()
	if _, err = f.Write(content); err == nil {
		_, err = s.commit()
	}
	return err
}

// discard removes all files that have not been renamed yet.
func (s *fileSet) discard() error {
	var errs []error
	for _, a := range s.finals {
		errs = append(errs, a.discard())
	}
	for _, a := range s.scratch {
		errs = append(errs, a.discard())
	}
	return errors.Join(errs...)
}
