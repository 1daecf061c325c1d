//go:build unix && !solaris && !aix

package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// waitForLock waits until no other process holds the lock of a file, and takes it until f is closed or the process
// ends. Where a file system has no locks it does nothing: the lock keeps the manifest whole, and no output depends on
// it.
func waitForLock(f *os.File) {
	for unix.Flock(int(f.Fd()), unix.LOCK_EX) == unix.EINTR {
	}
}

// claim takes the lock of a file, which ends with the process or when the file
// is closed. It is false where another process has it or there are no locks.
func claim(f *os.File) bool {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return true
		case unix.EINTR:
		default:
			return false
		}
	}
}
