// Package flock locks files against other processes with the system call flock. It never waits for a lock. On operating
// systems without this call, Supported is false.
package flock

import "errors"

// ErrLocked means that another process holds a lock that excludes the requested one.
var ErrLocked = errors.New("another process holds the lock")
