package cpu

import (
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"seqembed/kernels"
)

// line is the size in bytes of a cache line and of the longest vector.
const line = 64

// aligned allocates n zeros on Go's heap, aligned to a cache line.
func aligned(n int) []float32 {
	const values = line / 4
	all := make([]float32, n+values-1)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(all)))/4) & (values - 1)
	return all[skip : skip+n : skip+n]
}

// arena allocates the memory for the weights of a model or for the activations of a runner. Closing the model or the
// runner frees all memory of its arena. On Linux allocations of at least largeEnough bytes are outside Go's heap, so
// the garbage collector keeps no headroom for them. The system can use large pages for them, which make products of
// large weights 1 to 3% faster.
type arena struct {
	mutex  sync.Mutex
	mapped [][]byte
	room   int64  // bytes that the arena may still reserve, of those available at the first call of reserve
	by     string // name of the limit that room comes from; "" before the first call of reserve
}

// arenaShare is the part of the available memory that an arena may use. The rest is for reading sequences and writing
// results.
const arenaShare = 0.9

// largeEnough is the size in bytes of the smallest allocation that an arena maps, instead of taking it from Go's heap.
const largeEnough = 1 << 20

// floats allocates n zeros, aligned to a cache line.
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

// halves allocates n zeros, where n is even, aligned to a cache line.
func (a *arena) halves(n int) ([]uint16, error) {
	block, err := a.floats(n / 2)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(block))), n), nil
}

// reserve subtracts size bytes from the arena's room. If the room or the available memory is too small, it returns an
// error. Without this check, a system that overcommits memory would grant the memory and kill the process later.
//
// reserve looks up the available memory each time, because other parts of the program and other processes may have
// taken some of it. The available memory never raises the room, because it includes pages of earlier allocations that
// have not been used yet.
func (a *arena) reserve(size int64) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	bytes, by := Available()
	now := int64(arenaShare * float64(bytes))
	if a.by == "" {
		a.room, a.by = now, by
	}
	left := a.room
	if now < left {
		left = now
	} else {
		by = a.by
	}
	if size > left {
		return fmt.Errorf("%w: %d MB needed, %d MB left of %s", kernels.ErrOutOfMemory, (size-1)>>20+1, left>>20, by)
	}
	a.room -= size
	return nil
}

// grow returns at least n values. If old is long enough, it returns old. If old is too short, it frees old and returns
// new values, which are zero.
func (a *arena) grow(old []float32, n int) ([]float32, error) {
	if n <= len(old) {
		return old, nil
	}
	if err := a.release(old); err != nil {
		return nil, err
	}
	return a.floats(n)
}

// release frees the memory of an allocation. If the memory is on Go's heap, it is freed when nothing refers to it any
// more.
func (a *arena) release(values []float32) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for i, block := range a.mapped {
		if unsafe.Pointer(unsafe.SliceData(alignedIn(block))) == unsafe.Pointer(unsafe.SliceData(values)) {
			a.room += 4 * int64(len(values))
			a.mapped = slices.Delete(a.mapped, i, i+1)
			return unmap(block)
		}
	}
	return nil
}

// free frees all memory of the arena.
func (a *arena) free() error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, block := range a.mapped {
		if err := unmap(block); err != nil {
			return err
		}
	}
	a.mapped, a.by = nil, ""
	return nil
}

func unmap(block []byte) error {
	if err := unmapMemory(block); err != nil {
		return fmt.Errorf("unmapping memory: %w", err)
	}
	return nil
}
