//go:build unix && !solaris && !aix

package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// keepsLocks tells whether a file stays open, and so locked, until it has its final name.
const keepsLocks = true

// tryLock takes the lock of f, which lasts until f is closed or the process ends. It returns ErrLocked if another
// process holds the lock, and errors.ErrUnsupported on a file system without locks.
func tryLock(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		default:
			return errors.ErrUnsupported
		}
	}
}
