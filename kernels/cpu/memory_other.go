//go:build !linux

package cpu

// mapMemory returns nil: memory comes from Go's heap.
func mapMemory(int) ([]byte, error) { return nil, nil }

func alignedIn(block []byte) []byte { return block }

func unmapMemory([]byte) error { return nil }
