//go:build unix && !solaris && !aix

package flock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Supported tells whether the operating system supports file locks. Even if it does, some of its file systems may not.
const Supported = true

// Try locks f without waiting. A shared lock excludes exclusive locks of other processes, and an exclusive lock
// excludes both kinds. The lock lasts until f is closed or the process ends. Try returns ErrLocked if another process
// holds a lock that excludes this one, and errors.ErrUnsupported if locking fails for any other reason, such as a file
// system without locks.
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
