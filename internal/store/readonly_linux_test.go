package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func TestReadOnlyFolder(t *testing.T) {
	s := spec(t, Parquet, 33)
	if err := os.MkdirAll(s.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	// Other users must be able to enter the parent folders; only the output folder may be the obstacle.
	for dir := filepath.Dir(s.Dir); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(s.Dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(s.Dir, 0o777) })
	var err error
	asOrdinaryUser(t, func() { _, err = Create(s) })
	wantError(t, err, s.Paths()[0], "permission denied")
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v is not fs.ErrPermission", err)
	}
	if left := filesIn(t, s.Dir); left != nil {
		t.Errorf("left %q", left)
	}
}

// TestRepairInAReadOnlyFolder checks that Repair in a read-only folder returns an error if the manifest is damaged, and
// none if it is intact.
func TestRepairInAReadOnlyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	for parent := filepath.Dir(dir); parent != filepath.Clean(os.TempDir()); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, dir, testEntry(dir, "a"))
	good := readFile(t, manifestPath(dir))
	for _, content := range []string{string(good), "damaged\n" + string(good)} {
		if err := errors.Join(os.Chmod(dir, 0o777), os.WriteFile(manifestPath(dir), []byte(content), 0o644), os.Chmod(dir, 0o555)); err != nil {
			t.Fatal(err)
		}
		var err error
		asOrdinaryUser(t, func() { _, err = Repair(t.Context(), dir, ThisProcess("")) })
		if content == string(good) {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wantError(t, err, dir, "damaged and cannot be repaired", "permission denied")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

// asOrdinaryUser calls f in a thread that lacks root's permission to write anywhere. On Linux a thread loses that
// permission if its file-system user is not root.
func asOrdinaryUser(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setfsuid(0)
	f()
}

// TestInspectBesideAFolderThatCannotBeRead checks that Inspect reports a folder that cannot be read, and also the files
// beside it.
func TestInspectBesideAFolderThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for parent := dir; parent != filepath.Clean(os.TempDir()); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "closed"), 0o700), os.Chmod(filepath.Join(dir, "closed"), 0),
		os.WriteFile(filepath.Join(dir, "foreign"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "closed"), 0o700) })
	got := map[string]State{}
	var err error
	asOrdinaryUser(t, func() {
		err = Inspect(t.Context(), dir, true, func(string) bool { return false }, func(i Inspected) { got[i.Path] = i.State })
	})
	if err != nil || got["closed"] != Unreadable || got["foreign"] != Foreign || len(got) != 2 {
		t.Errorf("%v, error %v", got, err)
	}
}
