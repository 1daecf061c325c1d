package cpu

import (
	"testing"
	"unsafe"
)

// TestArena checks that allocations below and above largeEnough are aligned to a cache line, zero, writable to their
// last value, and disjoint.
func TestArena(t *testing.T) {
	var a arena
	var blocks [][]float32
	for _, n := range []int{1, 17, largeEnough/4 - 1, largeEnough / 4, largeEnough/4 + 3, 5<<20 + 1} {
		block, err := a.floats(n)
		if err != nil {
			t.Fatal(err)
		}
		if at := uintptr(unsafe.Pointer(&block[0])); len(block) != n || at%line != 0 {
			t.Errorf("an allocation of %d values is at %#x and has length %d", n, at, len(block))
		}
		for i := range block {
			if block[i] != 0 {
				t.Fatalf("value %d of %d is initially %v", i, n, block[i])
			}
			block[i] = float32(n)
		}
		blocks = append(blocks, block)
	}
	for _, block := range blocks {
		if block[0] != float32(len(block)) || block[len(block)-1] != float32(len(block)) {
			t.Errorf("an allocation of %d values was overwritten through another", len(block))
		}
	}
	if err := a.free(); err != nil {
		t.Error(err)
	}
	if err := a.free(); err != nil {
		t.Errorf("second call of free: %v", err)
	}
}
