package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHashFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, 16 << 20, 16<<20 + 1} {
		content := make([]byte, size)
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		if got, err := HashFile(t.Context(), path); err != nil || got != fmt.Sprintf("%x", sha256.Sum256(content)) {
			t.Errorf("%d bytes: %s, error %v", size, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := HashFile(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := HashFile(t.Context(), path+"-missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestInspectGoesOn checks that Inspect reports all other files if one cannot be read, or if a line of the manifest is
// damaged.
func TestInspectGoesOn(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		e := testEntry(dir, name)
		mustAppend(t, dir, e)
		for _, o := range e.Outputs {
			if err := errors.Join(os.MkdirAll(filepath.Dir(o.Path), 0o777), os.WriteFile(o.Path, nil, 0o666)); err != nil {
				t.Fatal(err)
			}
		}
	}
	unreadable := testEntry(dir, "b").Outputs[0].Path
	if err := errors.Join(os.Remove(unreadable), os.Symlink(filepath.Base(unreadable), unreadable)); err != nil {
		t.Skip("this file system has no symbolic links:", err)
	}
	lines := strings.SplitAfter(string(readFile(t, manifestPath(dir))), "\n")
	states := func() (count map[State]int, err error) {
		count = map[State]int{}
		return count, Inspect(t.Context(), dir, false, func(string) bool { return false }, func(i Inspected) {
			count[i.State]++
			if i.State == Unreadable && (filepath.Join(dir, i.Path) != unreadable || !strings.Contains(i.Detail, unreadable)) {
				t.Errorf("unreadable: %+v", i)
			}
		})
	}
	n := len(testEntry(dir, "a").Outputs)
	if got, err := states(); err != nil || got[Unreadable] != 1 || got[Changed] != 3*n-1 || got[Foreign] != 0 {
		t.Errorf("%v, error %v", got, err)
	}
	if err := os.WriteFile(manifestPath(dir), []byte(lines[0]+"damaged\n"+lines[1]), 0o666); err != nil {
		t.Fatal(err)
	}
	if got, err := states(); !errors.Is(err, ErrManifest) || got[Unreadable] != 1 || got[Changed] != 2*n-1 || got[Foreign] != n {
		t.Errorf("with a damaged line: %v, error %v", got, err)
	}
}
