package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// failingFS is the real file system, except that operation number failAt, counted from 1, fails with the error cause.
// If stays is set, all later operations fail, too. A write that fails still writes half of its bytes, as on a full
// disk. A close that fails still frees the descriptor. The removal of a file never fails.
type failingFS struct {
	failAt, done int
	stays        bool
	cause        error
	op           string // first operation that failed
}

func (f *failingFS) next(op string) error {
	f.done++
	if f.done < f.failAt || f.done > f.failAt && !f.stays {
		return nil
	}
	f.op = cmp.Or(f.op, op)
	return f.cause
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

func (f *failingFS) syncTree(dir string) error {
	if err := f.next("sync"); err != nil {
		return &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	return osFS{}.syncTree(dir)
}

func (f *failingFS) syncDir(dir string) error {
	if err := f.next("syncDir"); err != nil {
		return &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	return osFS{}.syncDir(dir)
}

func (f *failingFS) openLog(ctx context.Context, path string) (logFile, error) {
	if err := f.next("openLog"); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	inner, err := osFS{}.openLog(ctx, path)
	return &failingLog{inner, f, path}, err
}

func (f *failingFS) truncate(path string, size int64) error {
	if err := f.next("truncate"); err != nil {
		return &fs.PathError{Op: "truncate", Path: path, Err: err}
	}
	return osFS{}.truncate(path, size)
}

type failingLog struct {
	logFile
	fs   *failingFS
	path string
}

func (f *failingLog) Write(p []byte) (int, error) {
	if err := f.fs.next("write"); err != nil {
		n, _ := f.logFile.Write(p[:len(p)/2])
		return n, &fs.PathError{Op: "write", Path: f.path, Err: err}
	}
	return f.logFile.Write(p)
}

func (f *failingLog) ReadAt(p []byte, offset int64) (int, error) {
	if err := f.fs.next("readAt"); err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
	return f.logFile.ReadAt(p, offset)
}

func (f *failingLog) Sync() error {
	if err := f.fs.next("sync"); err != nil {
		return &fs.PathError{Op: "sync", Path: f.path, Err: err}
	}
	return f.logFile.Sync()
}

func (f *failingLog) Stat() (fs.FileInfo, error) {
	if err := f.fs.next("stat"); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	return f.logFile.Stat()
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

// writeOn writes rows to an output on the file system fsys and commits it. It stops at the first error.
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

// TestEveryFailureLeavesNoPartialOutput makes every file operation of an output fail, one after the other. A file under
// a final name must be complete, and no temporary file may be left. The error must be one line that names the output
// and wraps its cause.
func TestEveryFailureLeavesNoPartialOutput(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and slow under the race detector and on emulators")
	}
	for name, s := range everySpec(t) {
		if len(s.Columns) > 3 || s.Columns[0].Pooling == Residues && s.Format != Pt {
			continue // this Spec has the same file operations as one with three columns, or with Tokens
		}
		t.Run(name, func(t *testing.T) {
			s.Dim = 1024
			rows := makeRows(s, bufferSize/(4*s.Dim)+10) // more than one buffer per file
			if s.Format == Pt {
				rows = rows[:4] // each row is a file
			}
			complete := make(map[string][]byte)
			writeAll(t, s, rows)
			for _, path := range filesIn(t, s.Dir) {
				complete[path] = readFile(t, path)
			}
			ops := make(map[string]bool)
			for failAt := 1; ; failAt++ {
				if err := errors.Join(os.RemoveAll(s.Dir), os.Mkdir(s.Dir, 0o777)); err != nil {
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
					continue // the file is a scratch file, whose content is not needed any more
				}
				wantError(t, err, s.Dir)
				if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s: %v is not ENOSPC", where, err)
				}
				if text := err.Error(); strings.Contains(text, ".tmp-") || strings.Count(text, ": ") != 1 {
					t.Errorf("%s: %q, want one operation, one final path and one cause", where, text)
				}
				for _, path := range filesIn(t, s.Dir) {
					want, ok := complete[path]
					if !ok {
						t.Errorf("%s: left %s", where, path)
					} else if !bytes.Equal(readFile(t, path), want) {
						t.Errorf("%s: %s is not complete", where, path)
					}
					if strings.HasPrefix(path, s.Paths()[0]) && broken.op != "syncDir" && broken.op != "close" {
						t.Errorf("%s: the main file is there", where)
					}
				}
			}
			for _, op := range []string{"create", "write", "sync", "close", "rename", "syncDir"} {
				if !ops[op] {
					t.Errorf("no %s failed in this test", op)
				}
			}
		})
	}
}

// TestReplacedFilesGoFirst checks that Commit has removed the files in Spec.Replaces when it renames the first file, so
// that a process that is killed leaves no array beside other ids.
func TestReplacedFilesGoFirst(t *testing.T) {
	s := Spec{Dir: t.TempDir(), Base: "a", Model: "m", Kind: Protein, Format: Npy, Dim: 4, Columns: columnsOf([]int{0}, CLS)}
	s.Replaces = []string{filepath.Join(s.Dir, "a.m.mean.npy")}
	if err := os.WriteFile(s.Replaces[0], nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for failAt := 1; ; failAt++ {
		broken := &failingFS{failAt: failAt, cause: syscall.ENOSPC}
		if err := writeOn(s, broken, makeRows(s, 2)); err == nil {
			t.Fatal("no rename has failed")
		}
		_, err := os.Lstat(s.Replaces[0])
		if there := err == nil; broken.op == "rename" {
			if there {
				t.Error("the replaced file is still there when a file gets its name")
			}
			return
		} else if slices.Contains([]string{"create", "write", "sync"}, broken.op) && !there {
			t.Error("the replaced file is gone before the new ones are complete")
		}
	}
}

// TestManifestSurvivesEveryFailure makes every file operation of Manifest.Append fail, one after the other: alone, and
// together with all later operations. Earlier entries must be intact, the error must name the manifest and wrap its
// cause, and it must be possible to append the next entry.
func TestManifestSurvivesEveryFailure(t *testing.T) {
	whole := t.TempDir()
	mustAppend(t, whole, testEntry(whole, "a"))
	line := readFile(t, filepath.Join(whole, ManifestName))
	for _, before := range []string{"", string(line), string(line) + string(line[:100])} {
		for _, stays := range []bool{false, true} {
			ops := map[string]bool{}
			for failAt := 1; ; failAt++ {
				dir := t.TempDir()
				path := filepath.Join(dir, ManifestName)
				if before != "" {
					if err := os.WriteFile(path, []byte(before), 0o666); err != nil {
						t.Fatal(err)
					}
				}
				var kept []string
				if before != "" {
					kept = []string{"a"}
				}
				broken := &failingFS{failAt: failAt, stays: stays, cause: syscall.EIO}
				err := mustRead(t, dir).append(t.Context(), testEntry(dir, "b"), noClash, broken)
				if broken.op == "" {
					if err != nil {
						t.Fatal(err)
					}
					wantOutputs(t, dir, append(kept, "b")...)
					break
				}
				ops[broken.op] = true
				wantError(t, err, path)
				if !errors.Is(err, syscall.EIO) || strings.Count(err.Error(), ": ") != 1 {
					t.Errorf("%s: %q, want one operation, one path and EIO", broken.op, err)
				}
				if !stays || broken.op != "sync" && broken.op != "syncDir" { // an entry may be readable although its sync failed
					wantOutputs(t, dir, kept...)
				}
				mustAppend(t, dir, testEntry(dir, "c"))
				if m := mustRead(t, dir); m.lines > strings.Count(before, "\n")+2 {
					t.Errorf("%s: %d lines", broken.op, m.lines)
				} else if _, _, ok := m.Find(testEntry(dir, "c").Outputs[0].Path); !ok {
					t.Errorf("%s: the next entry is missing", broken.op)
				}
			}
			want := map[string]bool{"openLog": true, "stat": true, "readAt": true, "write": true, "sync": true}
			want["syncDir"] = before == ""
			want["truncate"] = strings.HasSuffix(before, string(line[:100]))
			for op, ok := range want {
				if ok != ops[op] {
					t.Errorf("after %d bytes, with a failing %s: %v", len(before), op, ops[op])
				}
			}
		}
	}
}

func TestFoldersInTheWay(t *testing.T) {
	s := spec(t, Parquet, 33)
	if err := os.Remove(s.Dir); err != nil {
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
	if err := os.Remove(s.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v: the folder is not there", err)
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

// TestSameOutputStays writes an output of several files again. If the new files have the same bytes, the old ones must
// stay, because another run may have just written them. If the bytes differ, the old files must be replaced.
func TestSameOutputStays(t *testing.T) {
	s := spec(t, Npy, 33)
	rows := makeRows(s, 3)
	for _, f := range writeAll(t, s, rows) {
		if err := os.Chtimes(f.Path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for _, again := range []struct {
		rows []Row
		same bool
	}{{rows, true}, {rows[:2], false}} {
		for _, f := range writeAll(t, s, again.rows) {
			info, err := os.Stat(f.Path)
			if err != nil || info.Size() != f.Size {
				t.Fatalf("%s: %v", f.Path, err)
			}
			if info.ModTime().Equal(time.Unix(1, 0)) != again.same {
				t.Errorf("%s of %d rows is from %v", f.Path, len(again.rows), info.ModTime())
			}
		}
		if left := filesIn(t, s.Dir); len(left) != 2 {
			t.Errorf("left %q", left)
		}
	}
}
