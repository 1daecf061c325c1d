//go:build !unix

package main

// limitChild does nothing on systems other than Unix, because no test there needs limits.
func limitChild() {}
