package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"seqembed/internal/flock"
)

// ErrLocked is wrapped by the error of an operation that did not get a lock because another process holds it.
var ErrLocked = flock.ErrLocked

// keepsLocks tells whether a temporary file stays open, and therefore locked, until it has its final name. It is false
// on systems without locks, some of which cannot rename or remove an open file.
const keepsLocks = flock.Supported

const (
	lockPause    = 50 * time.Millisecond // longest pause between two attempts to take a lock
	lockPatience = time.Second / 2       // time for which lock still waits after its context has ended
)

func (s osFS) tryLock(f *os.File, shared bool) error {
	if s.noLocks {
		return errors.ErrUnsupported
	}
	return flock.Try(f, shared)
}

// lock waits for the exclusive lock of f. If ctx ends, lock waits at most lockPatience longer, and then returns an
// error that wraps ErrLocked and the cause. On a file system without locks it does nothing.
func (s osFS) lock(ctx context.Context, f *os.File) error {
	var end <-chan time.Time
	done := ctx.Done()
	for pause := time.Millisecond; ; pause = min(2*pause, lockPause) {
		if err := s.tryLock(f, false); !errors.Is(err, ErrLocked) {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-done:
			done, end = nil, time.After(lockPatience)
		case <-end:
			return fmt.Errorf("%w: %w", ErrLocked, context.Cause(ctx))
		}
	}
}

// openLocked opens a file, creates it if needed, and takes its exclusive lock. If another process replaces or removes
// the file before the lock is taken, openLocked starts again with the new file.
func (s osFS) openLocked(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
		if err != nil {
			return nil, err
		}
		if err = s.lock(ctx, f); err == nil && isAt(f, path) {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// Lock takes the lock of the output at path and holds it until release is called. If several processes are about to
// make the same output, one has the lock, and the others wait. If ctx ends while Lock waits, Lock soon returns an error
// that wraps the cause. On a file system without locks nothing is locked.
func Lock(ctx context.Context, path string) (release func(), err error) {
	dir, name := filepath.Split(path)
	lock := dir + "." + name + ".tmp-" + strings.Repeat("0", 16) // after a crash RemoveLeftovers removes this file
	f, err := osFS{}.openLocked(ctx, lock)
	if err != nil {
		return nil, ioError("lock", path, err)
	}
	return func() {
		if !keepsLocks {
			f.Close()
		}
		_ = os.Remove(lock) // removed while locked: once unlocked, the file may be locked by another process
		f.Close()
	}, nil
}

// isAt reports whether the file at path is still f.
func isAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path) // follows a link, as opening does
	return err == nil && os.SameFile(opened, now)
}
