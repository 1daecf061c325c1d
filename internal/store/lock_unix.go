//go:build unix && !solaris && !aix

package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock waits for the exclusive lock of f and holds it until f is closed or the process ends. It does nothing on a file
// system without locks: the lock only keeps the manifest intact, and outputs do not depend on it.
func lock(f *os.File) {
	for unix.Flock(int(f.Fd()), unix.LOCK_EX) == unix.EINTR {
	}
}

// tryLock takes the exclusive lock of f, which lasts until f is closed or the process ends. It returns false if another
// process holds the lock or there are no locks.
func tryLock(f *os.File) bool {
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
