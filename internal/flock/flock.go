// Package flock locks files against other processes with the system call flock. It never waits for a lock. On operating
// systems without this call, Supported is false.
package flock

import "errors"

// ErrLocked is returned for a file that another process has locked.
var ErrLocked = errors.New("another process holds the lock")
