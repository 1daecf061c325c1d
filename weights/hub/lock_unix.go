//go:build unix && !solaris && !aix

package hub

import (
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes the lock of f, which lasts until f is closed, unless another process holds it. A file system without
// locks gives it to everybody.
func tryLock(f *os.File) (taken bool) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return err != unix.EWOULDBLOCK && err != unix.EINTR
}
