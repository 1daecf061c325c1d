package store

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestLeftovers checks that the file of a killed run is removed, and that files that are being written, are new, or
// have other names are kept.
func TestLeftovers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this file system has no locks")
	}
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	put := func(name string, when time.Time) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("12345"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		return path
	}
	killed := put(".reads.m.parquet.tmp-0123456789abcdef", old)
	kept := []string{
		put(".reads.m.parquet.tmp-00000000000000ff", time.Now()),
		put("reads.m.parquet.tmp-0123456789abcdef", old),
		put(".reads.m.parquet.tmp-0123", old),
		put("reads.m.parquet", old),
	}
	alive, err := createTemp(osFS{}, filepath.Join(dir, "other.parquet"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.f.Close()
	if err := os.Chtimes(alive.temp, old, old); err != nil {
		t.Fatal(err)
	}
	kept = append(kept, alive.temp)
	if n, err := RemoveLeftovers(dir); n != 5 || err != nil {
		t.Errorf("%d bytes were removed, want 5: %v", n, err)
	}
	if _, err := os.Stat(killed); !os.IsNotExist(err) {
		t.Errorf("the leftover is still there: %v", err)
	}
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
	if n, err := RemoveLeftovers(filepath.Join(dir, "none")); n != 0 || err != nil {
		t.Errorf("a missing folder: %d bytes, %v", n, err)
	}
}
