//go:build !linux

package softgpu

import "fmt"

// Committed returns an error, because the software GPU runs only on Linux.
func Committed() (folder string, err error) {
	return "", fmt.Errorf("%w, and Linux", ErrNoCompiler)
}
