//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package weights

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapMemory maps the first size bytes of the file, read-only.
func mapMemory(file *os.File, size int) ([]byte, error) {
	return unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
}

func unmapMemory(mapped []byte) error { return unix.Munmap(mapped) }

// releaseMemory drops the pages, which must start and end on page borders. It is advice: nothing depends on whether the
// system takes it.
func releaseMemory(pages []byte) { _ = unix.Madvise(pages, unix.MADV_DONTNEED) }
