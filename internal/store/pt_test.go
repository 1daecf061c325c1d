package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestPtNamesFilesAfterHeaders(t *testing.T) {
	s := spec(t, Pt, 33)
	rows := makeRows(s, 2)
	rows[0].ID, rows[0].Description = "sp|P1|X", "../name of a protein"
	rows[1].ID, rows[1].Description = "..", ""
	folder := writeAll(t, s, rows)[0].Path
	var names []string
	for _, path := range filesIn(t, s.Dir) {
		name, err := filepath.Rel(folder, path)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if got := strings.Join(names, "; "); got != "%2E..pt; sp|P1|X ..%2Fname of a protein.pt" {
		t.Errorf("files %s", got)
	}
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := errors.Join(w.Write(rows[0]), w.Write(rows[1])); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rows[0]); !errors.Is(err, ErrRecord) {
		t.Errorf("a second record of the same header: %v", err)
	}
	for _, p := range []Pooling{Max, Tokens} {
		s.Columns = columnsOf([]int{33}, p)
		_, err := Create(s)
		wantError(t, err, string(p), "mean, residues and cls")
	}
}

// TestFolderKeepsForeignFiles checks that an output of the format Pt, a folder, does not replace an earlier folder that
// also contains a file of the user, and removes nothing from it.
func TestFolderKeepsForeignFiles(t *testing.T) {
	s := spec(t, Pt, 33)
	folder := s.Paths()[0]
	writeAll(t, s, makeRows(s, 3))
	if err := os.WriteFile(filepath.Join(folder, "notes.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	before := filesIn(t, s.Dir)
	w, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(makeRows(s, 2)[1]); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit()
	wantError(t, err, folder, `"notes.txt"`)
	if left := filesIn(t, s.Dir); !slices.Equal(left, before) || len(left) != 4 {
		t.Errorf("left %q of %q", left, before)
	}
}

// TestLeftoversOfFolders checks that RemoveLeftovers removes a folder that a killed run was writing, with the temporary
// file that locked it, and keeps the folder of a run that is alive.
func TestLeftoversOfFolders(t *testing.T) {
	dir := t.TempDir()
	alive, err := createTempFolder(osFS{}, filepath.Join(dir, "a.pt"), ".pt")
	if err != nil {
		t.Fatal(err)
	}
	if err := alive.add("x.pt", []byte("content")); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, ".b.pt.tmp-0123456789abcdef")
	if err := errors.Join(os.WriteFile(dead, []byte("."), 0o666), os.Mkdir(dead+folderSuffix, 0o777),
		os.WriteFile(filepath.Join(dead+folderSuffix, "y.pt"), []byte("four"), 0o666)); err != nil {
		t.Fatal(err)
	}
	if bytes, err := RemoveLeftovers(dir); err != nil || bytes != 5 {
		t.Errorf("removed %d bytes, want 5: %v", bytes, err)
	}
	if left := filesIn(t, dir); len(left) != 2 {
		t.Errorf("left %q, want the two files of the run that is alive", left)
	}
	if err := alive.discard(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// TestFoldersAtOnce lets several goroutines each write a temporary folder with the same files and rename it to the same
// path, as runs of the same command do. None may fail, and only one complete folder may be left.
func TestFoldersAtOnce(t *testing.T) {
	final := filepath.Join(t.TempDir(), "x")
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("%02d.pt", i))
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 10 {
				d, err := createTempFolder(osFS{}, final, ".pt")
				if err != nil {
					t.Error(err)
					return
				}
				for _, name := range names {
					err = errors.Join(err, d.add(name, []byte(name)))
				}
				if err := errors.Join(err, d.publish()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	list, err := os.ReadDir(final)
	if err != nil || len(list) != len(names) {
		t.Errorf("%d files: %v", len(list), err)
	}
	if rest, _ := os.ReadDir(filepath.Dir(final)); len(rest) != 1 {
		t.Errorf("%q are left", rest)
	}
}
