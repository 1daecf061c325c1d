//go:build !unix || solaris || aix

package flock

import (
	"errors"
	"os"
)

// Supported is false on this system.
const Supported = false

// Try returns errors.ErrUnsupported on this system.
func Try(*os.File, bool) error { return errors.ErrUnsupported }
