//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package weights

import (
	"errors"
	"os"
)

// mapMemory always fails: on this system files are read with ReadAt.
func mapMemory(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmapMemory([]byte) error { return nil }

func releaseMemory([]byte) {}
