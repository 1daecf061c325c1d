//go:build unix && !solaris && !aix

package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFolder waits until no other process holds the folder's lock, and takes
// it. Where a file system has no locks it does nothing: the lock keeps
// manifests whole, and no output depends on it.
func lockFolder(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	return func() { f.Close() } // which gives the lock up
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
