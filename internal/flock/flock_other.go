//go:build !unix || solaris || aix

package flock

import (
	"errors"
	"os"
)

// Supported is false, because this operating system has no file locks that package flock can use.
const Supported = false

// Try always returns errors.ErrUnsupported, because Supported is false.
func Try(*os.File, bool) error { return errors.ErrUnsupported }
