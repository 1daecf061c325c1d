//go:build !unix

package main

// limitChild does nothing on this system. The tests that need it run on Unix only.
func limitChild() {}
