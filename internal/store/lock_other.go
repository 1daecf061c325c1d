//go:build !unix || solaris || aix

package store

import "os"

// lock does nothing on this system.
func lock(*os.File) {}

// tryLock always fails on this system.
func tryLock(*os.File) bool { return false }
