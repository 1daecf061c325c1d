// Package flock locks files against other processes without waiting. It is the only package of the module that knows
// which systems have such locks.
package flock

import "errors"

// ErrLocked is returned for a file that another process has locked.
var ErrLocked = errors.New("another process holds the lock")
