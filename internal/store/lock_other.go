//go:build !unix || solaris || aix

package store

import (
	"errors"
	"os"
)

// keepsLocks is false where an open file cannot be renamed.
const keepsLocks = false

// tryLock always fails on this system.
func tryLock(*os.File, bool) error { return errors.ErrUnsupported }
