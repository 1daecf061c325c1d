//go:build !unix

package main

// leaveNoCore does nothing, because a crash writes no core file on systems other than Unix.
func leaveNoCore([]string) {}
