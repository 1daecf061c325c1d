package cpu

import (
	"syscall"
	"testing"
	"unsafe"
)

// guarded allocates n values that end right before an inaccessible page, or begin right after an inaccessible page.
func guarded(t testing.TB, n int, atEnd bool) []float32 {
	page := syscall.Getpagesize()
	size := (4*n + page - 1) &^ (page - 1)
	block, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(block); err != nil {
			t.Error(err)
		}
	})
	for _, guard := range [][]byte{block[:page], block[page+size:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	start := page
	if atEnd {
		start += size - 4*n
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&block[start])), n)
}
