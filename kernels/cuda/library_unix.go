//go:build linux && (amd64 || arm64)

package cuda

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// supported says whether this build can load the libraries at all.
const supported = true

// openLibrary loads a shared library by path, or by name along the loader's
// own path. The loader keeps the reason of a failure for each thread, and
// purego asks for it in a second call: the goroutine must not move to another
// thread between the two, or the reason is lost.
func openLibrary(path string) (uintptr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
}

// writable says why files cannot be made in a folder, or nil.
func writable(folder string) error {
	info, err := os.Stat(folder)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = unix.Access(folder, unix.W_OK|unix.X_OK)
	}
	return err
}

// lookUp finds a function of a library. It stays on one thread for the reason
// that openLibrary gives.
func lookUp(library uintptr, name string) (uintptr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	symbol, err := purego.Dlsym(library, name)
	if err != nil {
		return 0, fmt.Errorf("function %s: %w", name, err)
	}
	return symbol, nil
}

// register sets every function variable to the symbol of its name.
func register(library uintptr, symbols map[string]any) error {
	for name, function := range symbols {
		symbol, err := lookUp(library, name)
		if err != nil {
			return err
		}
		purego.RegisterFunc(function, symbol)
	}
	return nil
}

// bindDriver fills d from a loaded libcuda. The launch goes through SyscallN:
// it is called hundreds of times a batch, and RegisterFunc's reflection would
// cost more than the driver does.
func bindDriver(library uintptr, d *driver) error {
	if err := register(library, d.symbols()); err != nil {
		return err
	}
	launch, err := lookUp(library, "cuLaunchKernel")
	if err != nil {
		return err
	}
	d.cuLaunchKernel = func(f handle, grid, block [3]uint32, shared uint32, stream handle, params unsafe.Pointer) result {
		r, _, _ := purego.SyscallN(launch, uintptr(f),
			uintptr(grid[0]), uintptr(grid[1]), uintptr(grid[2]),
			uintptr(block[0]), uintptr(block[1]), uintptr(block[2]),
			uintptr(shared), uintptr(stream), uintptr(params), 0)
		return result(r)
	}
	return nil
}

// bindCublas fills c from a loaded libcublasLt; the calls made for every
// product go through SyscallN, for the same reason.
func bindCublas(library uintptr, c *cublasLt) error {
	if err := register(library, c.symbols()); err != nil {
		return err
	}
	hot := map[string]uintptr{}
	for _, name := range []string{"cublasLtMatmul", "cublasLtMatmulAlgoCheck", "cublasLtMatrixLayoutSetAttribute", "cublasLtMatmulDescSetAttribute"} {
		symbol, err := lookUp(library, name)
		if err != nil {
			return err
		}
		hot[name] = symbol
	}
	matmul, check := hot["cublasLtMatmul"], hot["cublasLtMatmulAlgoCheck"]
	setLayout, setDesc := hot["cublasLtMatrixLayoutSetAttribute"], hot["cublasLtMatmulDescSetAttribute"]
	c.matmul = func(m matmulCall) status {
		r, _, _ := purego.SyscallN(matmul, uintptr(m.handle), uintptr(m.desc), uintptr(m.alpha),
			uintptr(m.a), uintptr(m.aLayout), uintptr(m.b), uintptr(m.bLayout), uintptr(m.beta),
			uintptr(m.c), uintptr(m.cLayout), uintptr(m.d), uintptr(m.dLayout),
			uintptr(unsafe.Pointer(m.algo)), uintptr(m.workspace), uintptr(m.workspaceBytes), uintptr(m.stream))
		return status(r)
	}
	c.algoCheck = func(lt handle, desc handle, a, b, cc, d handle, algo *matmulAlgo, found *heuristicResult) status {
		r, _, _ := purego.SyscallN(check, uintptr(lt), uintptr(desc), uintptr(a), uintptr(b), uintptr(cc), uintptr(d),
			uintptr(unsafe.Pointer(algo)), uintptr(unsafe.Pointer(found)))
		return status(r)
	}
	c.layoutSet = func(layout handle, attribute int32, value *uint64, bytes uint64) status {
		r, _, _ := purego.SyscallN(setLayout, uintptr(layout), uintptr(attribute), uintptr(unsafe.Pointer(value)), uintptr(bytes))
		return status(r)
	}
	c.descSet = func(desc handle, attribute int32, value *uint64, bytes uint64) status {
		r, _, _ := purego.SyscallN(setDesc, uintptr(desc), uintptr(attribute), uintptr(unsafe.Pointer(value)), uintptr(bytes))
		return status(r)
	}
	return nil
}
