package cpu

import (
	"syscall"
	"unsafe"
)

// largePage is the size of a large page in bytes.
const largePage = 2 << 20

// mapMemory maps size bytes, which are zero, and one large page more, so that they can be aligned to a large page. The
// system may refuse large pages, which only costs speed.
func mapMemory(size int) ([]byte, error) {
	block, err := syscall.Mmap(-1, 0, size+largePage, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	// The rest after the last whole large page uses small pages, because a large page for it would waste up to 2 MB.
	if whole := size &^ (largePage - 1); whole > 0 {
		_ = syscall.Madvise(alignedIn(block)[:whole], syscall.MADV_HUGEPAGE)
	}
	return block, nil
}

// alignedIn returns the part of a mapped block that begins at the first address aligned to a large page.
func alignedIn(block []byte) []byte {
	return block[-uintptr(unsafe.Pointer(unsafe.SliceData(block)))&(largePage-1):]
}

func unmapMemory(block []byte) error { return syscall.Munmap(block) }
