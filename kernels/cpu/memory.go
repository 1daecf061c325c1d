package cpu

import (
	"fmt"
	"sync"
	"unsafe"

	"seqembed/kernels"
)

// line is the size of a cache line and of the longest vector, in bytes.
const line = 64

// aligned allocates n zeros on Go's heap that begin at a cache line, so that a
// vector never lies across two.
func aligned(n int) []float32 {
	const values = line / 4
	all := make([]float32, n+values-1)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(all)))/4) & (values - 1)
	return all[skip : skip+n : skip+n]
}

// arena holds memory that is freed at once: weights until the backend is
// closed, activations until their stream is. Outside Go's heap the collector
// keeps no headroom for it, and the system can back it with large pages, from
// which products of large weights gain 1 to 3%.
type arena struct {
	mutex  sync.Mutex
	mapped [][]byte
	room   int64 // bytes left for it, as the system had them at the first allocation
}

// arenaShare is the part of the available memory that an arena may take: the rest
// is for keys, values and scores of attention, and for reading and writing.
const arenaShare = 0.9

// largeEnough is the size, in bytes, from which memory is mapped.
const largeEnough = 1 << 20

// floats allocates n zeros that begin at a cache line.
func (a *arena) floats(n int) ([]float32, error) {
	if 4*n < largeEnough {
		return aligned(n), nil
	}
	if err := a.reserve(4 * int64(n)); err != nil {
		return nil, err
	}
	block, err := mapMemory(4 * n)
	if err != nil {
		return nil, fmt.Errorf("%w: mapping %d bytes: %w", kernels.ErrOutOfMemory, 4*n, err)
	}
	if block == nil {
		return aligned(n), nil
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.mapped = append(a.mapped, block)
	first := alignedIn(block)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(first))), n), nil
}

// halves allocates n zeros, an even number, that begin at a cache line.
func (a *arena) halves(n int) ([]uint16, error) {
	block, err := a.floats(n / 2)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(block))), n), nil
}

// reserve takes size bytes of the arena's room. A system that promises more
// than it has would end the process when the pages are touched.
func (a *arena) reserve(size int64) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.room == 0 {
		a.room = int64(arenaShare * float64(available()))
	}
	if size > a.room {
		return fmt.Errorf("%w: %d MB are needed and %d MB are left", kernels.ErrOutOfMemory, size>>20, a.room>>20)
	}
	a.room -= size
	return nil
}

// free gives everything back. What was allocated must not be used again.
func (a *arena) free() error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, block := range a.mapped {
		if err := unmapMemory(block); err != nil {
			return fmt.Errorf("unmapping memory: %w", err)
		}
	}
	a.mapped, a.room = nil, 0
	return nil
}
