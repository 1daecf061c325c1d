//go:build !(linux && (amd64 || arm64))

package driver

// supported tells whether this build can load the libraries.
const supported = false

// OpenLibrary fails on this system.
func OpenLibrary(string) (uintptr, error) { return 0, errNoBuild() }

// BindCUDA fails on this system.
func BindCUDA(uintptr) (*CUDA, error) { return nil, errNoBuild() }

// BindCublasLt fails on this system.
func BindCublasLt(uintptr) (*CublasLt, error) { return nil, errNoBuild() }

// BindNVML fails on this system.
func BindNVML(uintptr) (*NVML, error) { return nil, errNoBuild() }

func writable(string) error { return nil }
