//go:build unix && !solaris && !aix

package flock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Supported tells whether the operating system has locks. A file system may have none even if it is true.
const Supported = true

// Try takes the lock of f, shared or exclusive. The lock lasts until f is closed or the process ends. Try returns
// ErrLocked if another process holds the lock, and errors.ErrUnsupported on a file system without locks.
func Try(f *os.File, shared bool) error {
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
