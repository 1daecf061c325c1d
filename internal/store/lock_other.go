//go:build !unix || solaris || aix

package store

// lockFolder does nothing here.
func lockFolder(string) (unlock func()) { return func() {} }
