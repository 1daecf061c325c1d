//go:build unix && !solaris && !aix

package hub

import (
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes the lock of f unless another process holds it. The lock lasts until f is closed. On a file system
// without locks, tryLock reports success.
func tryLock(f *os.File) (taken bool) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return err != unix.EWOULDBLOCK && err != unix.EINTR
}
