//go:build !linux

package softgpu

import "fmt"

// Committed has no answer here.
func Committed() (folder string, err error) {
	return "", fmt.Errorf("%w, and Linux", ErrNoCompiler)
}
