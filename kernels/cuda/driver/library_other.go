//go:build !(linux && (amd64 || arm64)) || static

package driver

// supported tells whether this build can load shared libraries, and so those of CUDA.
const supported = false

// OpenLibrary fails in this build.
func OpenLibrary(string) (uintptr, error) { return 0, errNoBuild() }

// BindCUDA fails in this build.
func BindCUDA(uintptr) (*CUDA, error) { return nil, errNoBuild() }

// BindCublasLt fails in this build.
func BindCublasLt(uintptr) (*CublasLt, error) { return nil, errNoBuild() }

// BindNVML fails in this build.
func BindNVML(uintptr) (*NVML, error) { return nil, errNoBuild() }

func writable(string) error { return nil }
