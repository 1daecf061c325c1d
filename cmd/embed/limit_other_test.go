//go:build !unix

package main

// limitChild has nothing to set here: the tests that need it are for unix.
func limitChild() {}
