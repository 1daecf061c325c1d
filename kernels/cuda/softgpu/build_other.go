//go:build !linux

package softgpu

import "fmt"

// Committed returns an error on this system.
func Committed() (folder string, err error) {
	return "", fmt.Errorf("%w, and Linux", ErrNoCompiler)
}
