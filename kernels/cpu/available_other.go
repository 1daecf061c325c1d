//go:build !linux

package cpu

import "math"

// available returns MaxInt64: the available memory is not known on this system.
func available() int64 { return math.MaxInt64 }
