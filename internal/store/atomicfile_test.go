package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// failingFS is the real file system up to its failAt-th operation, which fails. A failing write leaves half of its
// bytes, as a full disk does. Removing always works, closing frees the descriptor even when it fails.
type failingFS struct {
	failAt, done int
	cause        error
	op           string // what failed
}

func (f *failingFS) next(op string) error {
	f.done++
	if f.done != f.failAt {
		return nil
	}
	f.op = op
	return f.cause
}

func (f *failingFS) mkdirAll(dir string) error {
	if err := f.next("mkdir"); err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return osFS{}.mkdirAll(dir)
}

func (f *failingFS) create(path string) (file, error) {
	if err := f.next("create"); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	inner, err := osFS{}.create(path)
	return &failingFile{inner, f, path}, err
}

func (f *failingFS) rename(from, to string) error {
	if err := f.next("rename"); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return osFS{}.rename(from, to)
}

func (f *failingFS) remove(path string) error { return osFS{}.remove(path) }

func (f *failingFS) syncDir(dir string) error {
	if err := f.next("syncDir"); err != nil {
		return &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	return osFS{}.syncDir(dir)
}

type failingFile struct {
	file
	fs   *failingFS
	path string
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.fs.next("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, &fs.PathError{Op: "write", Path: f.path, Err: err}
	}
	return f.file.Write(p)
}

func (f *failingFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.fs.next("writeAt"); err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], offset)
		return n, &fs.PathError{Op: "write", Path: f.path, Err: err}
	}
	return f.file.WriteAt(p, offset)
}

func (f *failingFile) ReadAt(p []byte, offset int64) (int, error) {
	if err := f.fs.next("readAt"); err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
	return f.file.ReadAt(p, offset)
}

func (f *failingFile) Sync() error {
	if err := f.fs.next("sync"); err != nil {
		return &fs.PathError{Op: "sync", Path: f.path, Err: err}
	}
	return f.file.Sync()
}

func (f *failingFile) Close() error {
	err := f.file.Close()
	if failed := f.fs.next("close"); failed != nil {
		return &fs.PathError{Op: "close", Path: f.path, Err: failed}
	}
	return err
}

// writeOn writes rows on a file system and gives up at the first error.
func writeOn(s Spec, fsys fileSystem, rows []Row) error {
	w, err := create(s, fsys)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := w.Write(r); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	_, err = w.Commit()
	return err
}

// Whatever fails, and wherever: a file under a final name is complete, no temporary file stays, and the error is one
// line that names the output and keeps its cause.
func TestEveryFailureLeavesNoPartialOutput(t *testing.T) {
	for name, s := range everySpec(t) {
		t.Run(name, func(t *testing.T) {
			s.Dim = 1024
			rows := makeRows(s, bufferSize/(4*s.Dim)+10) // more than one buffer per file
			complete := make(map[string][]byte)
			for _, f := range writeAll(t, s, rows) {
				complete[f.Path] = readFile(t, f.Path)
			}
			ops := make(map[string]bool)
			for failAt := 1; ; failAt++ {
				if err := os.RemoveAll(s.Dir); err != nil {
					t.Fatal(err)
				}
				broken := &failingFS{failAt: failAt, cause: syscall.ENOSPC}
				err := writeOn(s, broken, rows)
				if broken.op == "" {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				ops[broken.op] = true
				where := fmt.Sprintf("operation %d, %s", failAt, broken.op)
				if err == nil && broken.op == "close" && len(filesIn(t, s.Dir)) == len(complete) {
					continue // a scratch file, read back before and removed
				}
				wantError(t, err, s.Dir)
				if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s: %v is not ENOSPC", where, err)
				}
				if text := err.Error(); strings.Contains(text, ".tmp-") || strings.Count(text, ": ") != 1 {
					t.Errorf("%s: %q, want one operation, one final path and one cause", where, text)
				}
				if broken.op == "mkdir" {
					continue
				}
				for _, path := range filesIn(t, s.Dir) {
					want, ok := complete[path]
					if !ok {
						t.Errorf("%s: left %s", where, path)
					} else if !bytes.Equal(readFile(t, path), want) {
						t.Errorf("%s: %s is not complete", where, path)
					}
					if path == s.Paths()[0] && broken.op != "syncDir" {
						t.Errorf("%s: the main file is there", where)
					}
				}
			}
			for _, op := range []string{"mkdir", "create", "write", "sync", "close", "rename", "syncDir"} {
				if !ops[op] {
					t.Errorf("no %s was made to fail", op)
				}
			}
		})
	}
}

func TestManifestSurvivesEveryFailure(t *testing.T) {
	dir := t.TempDir()
	old := new(Manifest)
	old.Put(testEntry(dir, "a.fa"))
	if err := old.Write(dir); err != nil {
		t.Fatal(err)
	}
	content := readFile(t, filepath.Join(dir, ManifestName))
	changed := new(Manifest)
	changed.Put(testEntry(dir, "b.fa"))
	failures := 0
	for failAt := 1; ; failAt++ {
		broken := &failingFS{failAt: failAt, cause: syscall.EIO}
		err := changed.write(dir, broken)
		if broken.op == "" {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		failures++
		wantError(t, err, dir)
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v is not EIO", broken.op, err)
		}
		if broken.op != "syncDir" && !bytes.Equal(readFile(t, filepath.Join(dir, ManifestName)), content) {
			t.Errorf("%s failed and the manifest changed", broken.op)
		}
		if names := filesIn(t, dir); len(names) != 1 {
			t.Errorf("%s failed and left %q", broken.op, names)
		}
	}
	if failures < 7 {
		t.Errorf("only %d operations were made to fail", failures)
	}
}

func TestFoldersInTheWay(t *testing.T) {
	s := spec(t, Parquet, 33)
	if err := os.MkdirAll(filepath.Dir(s.Dir), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Dir, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Create(s)
	wantError(t, err, s.Dir)
	if !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v is not ENOTDIR", err)
	}

	s = spec(t, Parquet, 33)
	if err := os.MkdirAll(s.Paths()[0], 0o777); err != nil {
		t.Fatal(err)
	}
	err = writeOn(s, osFS{}, makeRows(s, 2))
	wantError(t, err, s.Paths()[0])
	if left := filesIn(t, s.Dir); left != nil {
		t.Errorf("left %q", left)
	}
}

func TestTemporaryFilesAreHiddenAndOutputsReadable(t *testing.T) {
	s := spec(t, Npy, 33)
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range filesIn(t, s.Dir) {
		final := strings.TrimPrefix(filepath.Base(path), ".")
		final, _, _ = strings.Cut(final, ".tmp-")
		if filepath.Base(path)[0] != '.' || !slices.Contains(s.Paths(), filepath.Join(s.Dir, final)) {
			t.Errorf("temporary file %q", path)
		}
	}
	files, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(s.Dir, "plain")
	if err := os.WriteFile(plain, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f.Path); err != nil || info.Mode() != want.Mode() {
			t.Errorf("%s has mode %v, other files have %v (%v)", f.Path, info.Mode(), want.Mode(), err)
		}
	}
}
