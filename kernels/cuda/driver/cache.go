package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// KernelCache returns the folder in which the driver caches compiled kernels, according to the environment variables
// that NVIDIA documents. The error is the reason why the driver cannot cache kernels.
func (p Places) KernelCache() (folder string, err error) {
	if p.Getenv("CUDA_CACHE_DISABLE") == "1" {
		return "", errors.New("CUDA_CACHE_DISABLE is 1")
	}
	folder = p.Getenv("CUDA_CACHE_PATH")
	if folder == "" {
		home := p.Getenv("HOME")
		if home == "" {
			return "", errors.New("HOME is not set; set it, or CUDA_CACHE_PATH to a folder for them")
		}
		folder = filepath.Join(home, ".nv/ComputeCache")
	}
	// If the folder does not exist, the driver creates it, so the nearest existing folder above it must be writable.
	existing := folder
	for parent := filepath.Dir(existing); parent != existing; parent = filepath.Dir(parent) {
		if _, err := os.Stat(existing); err == nil {
			break
		}
		existing = parent
	}
	if err := writable(existing); err != nil {
		return folder, fmt.Errorf("%s cannot be written (%w); set CUDA_CACHE_PATH to a folder for them", folder, err)
	}
	return folder, nil
}
