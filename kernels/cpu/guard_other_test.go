//go:build !linux

package cpu

import "testing"

// guarded allocates n values. Guard pages are only used on Linux.
func guarded(_ testing.TB, n int, _ bool) []float32 { return make([]float32, n) }
