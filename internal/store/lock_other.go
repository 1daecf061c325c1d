//go:build !unix || solaris || aix

package store

import (
	"errors"
	"os"
)

// keepsLocks is false, because an open file cannot be renamed on some of these systems.
const keepsLocks = false

// tryLock always fails on this system.
func tryLock(*os.File, bool) error { return errors.ErrUnsupported }
