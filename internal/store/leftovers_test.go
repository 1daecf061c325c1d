package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLeftovers checks that the files of killed runs are removed, whatever their age. Files that a run is writing, and
// files with other names, must be kept.
func TestLeftovers(t *testing.T) {
	skipWithoutLocks(t)
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
	killed := []string{
		put(".reads.m.parquet.tmp-0123456789abcdef", old),
		put(".reads.m.parquet.tmp-00000000000000ff", time.Now()),
		put(".reads.m.parquet.tmp-00000000000000fe", time.Now().Add(48*time.Hour)),
		put(".run-0123456789abcdef", old),
		put(".probe-12", old),
	}
	kept := []string{
		put("reads.m.parquet.tmp-0123456789abcdef", old),
		put(".reads.m.parquet.tmp-0123", old),
		put(".probe-x", old),
		put("reads.m.parquet", old),
	}
	alive, err := createTemp(osFS{}, filepath.Join(dir, "other.parquet"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.f.Close()
	sealed, err := createTemp(osFS{}, filepath.Join(dir, "sealed.parquet"), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.seal(); err != nil {
		t.Fatal(err)
	}
	leave, err := Claim(dir, Holder{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	kept = append(kept, alive.temp, sealed.temp)
	if n, err := RemoveLeftovers(dir); n != 5*5 || err != nil {
		t.Errorf("%d bytes were removed, want 25: %v", n, err)
	}
	if err := sealed.publish(); err != nil {
		t.Error(err)
	}
	kept[len(kept)-1] = sealed.final
	for _, path := range killed {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if claims, err := filepath.Glob(filepath.Join(dir, claimPrefix+"*")); err != nil || len(claims) != 1 {
		t.Errorf("claims: %q, %v", claims, err)
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

// TestLeftoversBesideWriters checks that outputs are written without an error while RemoveLeftovers is called again and
// again in their folder.
func TestLeftoversBesideWriters(t *testing.T) {
	dir := t.TempDir()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				_, _ = RemoveLeftovers(dir)
			}
		}
	}()
	for range 100 {
		f, err := createTemp(osFS{}, filepath.Join(dir, "x"), false)
		if err == nil {
			_, err = f.seal()
		}
		if err == nil {
			err = f.publish()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	close(end)
	<-ended
}
