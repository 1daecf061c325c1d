//go:build !(linux && (amd64 || arm64))

package cuda

// supported says whether this build can load the libraries at all.
const supported = false

func openLibrary(string) (uintptr, error) { return 0, errNoBuild() }
func bindDriver(uintptr, *driver) error   { return errNoBuild() }
func bindCublas(uintptr, *cublasLt) error { return errNoBuild() }
func writable(string) error               { return nil }
