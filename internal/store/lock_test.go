package store

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// TestLock checks that Lock holds the lock of an output until release is called, and that no lock file is left
// afterwards.
func TestLock(t *testing.T) {
	if !keepsLocks {
		t.Skip("this system has no locks")
	}
	path := filepath.Join(t.TempDir(), "out.pt")
	release, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ended, path); !errors.Is(err, ErrLocked) || !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock: %v", err)
	}
	release()
	if release, err = Lock(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	release()
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
		t.Errorf("%q stay, error %v", left, err)
	}
	if _, err := Lock(t.Context(), filepath.Join(path, "none")); err == nil {
		t.Error("a lock in a folder that does not exist")
	}
}
