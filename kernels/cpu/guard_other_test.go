//go:build !linux

package cpu

import "testing"

// guarded allocates n values; guard pages are tried on Linux alone.
func guarded(_ testing.TB, n int, _ bool) []float32 { return make([]float32, n) }
