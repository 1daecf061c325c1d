//go:build linux && (amd64 || arm64)

package cuda

import (
	"fmt"
	"os"
	"runtime"
	"sync"
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

// lookUpAll finds several functions.
func lookUpAll(library uintptr, names ...string) ([]uintptr, error) {
	var symbols []uintptr
	for _, name := range names {
		symbol, err := lookUp(library, name)
		if err != nil {
			return nil, err
		}
		symbols = append(symbols, symbol)
	}
	return symbols, nil
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

// caller calls C functions without an allocation. SyscallN moves a list of arguments to the heap, but takes one that is
// there.
type caller struct{ lists sync.Pool }

func newCaller() *caller {
	return &caller{sync.Pool{New: func() any { return new([maxArguments]uintptr) }}}
}

// maxArguments is the most that a function takes which is called this way: cublasLtMatmul.
const maxArguments = 16

// call gives the result of a function. Go memory among the arguments has to be on the heap, and the caller keeps it
// alive.
func (c *caller) call(function uintptr, args ...uintptr) uintptr {
	list := c.lists.Get().(*[maxArguments]uintptr)
	defer c.lists.Put(list)
	own := list[:len(args)]
	copy(own, args)
	r, _, _ := purego.SyscallN(function, own...)
	return r
}

// bindDriver fills d from a loaded libcuda. What every batch calls goes around
// RegisterFunc: a launch is made hundreds of times a batch, and its reflection
// would cost more than the driver does, and allocates.
func bindDriver(library uintptr, d *driver) error {
	if err := register(library, d.symbols()); err != nil {
		return err
	}
	hot, err := lookUpAll(library, "cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamWaitEvent",
		"cuEventRecord", "cuEventSynchronize")
	if err != nil {
		return err
	}
	launch, up, down, wait, record, synchronize := hot[0], hot[1], hot[2], hot[3], hot[4], hot[5]
	c := newCaller()
	d.cuLaunchKernel = func(f handle, grid, block [3]uint32, shared uint32, stream handle, params unsafe.Pointer) result {
		return result(c.call(launch, uintptr(f),
			uintptr(grid[0]), uintptr(grid[1]), uintptr(grid[2]),
			uintptr(block[0]), uintptr(block[1]), uintptr(block[2]),
			uintptr(shared), uintptr(stream), uintptr(params), 0))
	}
	d.cuMemcpyHtoDAsync = func(dst devicePtr, src unsafe.Pointer, bytes uint64, stream handle) result {
		return result(c.call(up, uintptr(dst), uintptr(src), uintptr(bytes), uintptr(stream)))
	}
	d.cuMemcpyDtoHAsync = func(dst unsafe.Pointer, src devicePtr, bytes uint64, stream handle) result {
		return result(c.call(down, uintptr(dst), uintptr(src), uintptr(bytes), uintptr(stream)))
	}
	d.cuStreamWaitEvent = func(stream, event handle, flags uint32) result {
		return result(c.call(wait, uintptr(stream), uintptr(event), uintptr(flags)))
	}
	d.cuEventRecord = func(event, stream handle) result { return result(c.call(record, uintptr(event), uintptr(stream))) }
	d.cuEventSynchronize = func(event handle) result { return result(c.call(synchronize, uintptr(event))) }
	return nil
}

// bindCublas fills c from a loaded libcublasLt; the calls made for every
// product go the same way, for the same reasons. The Go memory that they are
// given is on the heap, since the compiler does not know what becomes of the
// arguments of a field.
func bindCublas(library uintptr, c *cublasLt) error {
	if err := register(library, c.symbols()); err != nil {
		return err
	}
	hot, err := lookUpAll(library, "cublasLtMatmul", "cublasLtMatmulAlgoCheck", "cublasLtMatrixLayoutSetAttribute",
		"cublasLtMatmulDescSetAttribute")
	if err != nil {
		return err
	}
	matmul, check, setLayout, setDesc := hot[0], hot[1], hot[2], hot[3]
	through := newCaller()
	c.matmul = func(m matmulCall) status {
		defer runtime.KeepAlive(m.algo)
		return status(through.call(matmul, uintptr(m.handle), uintptr(m.desc), m.alpha,
			uintptr(m.a), uintptr(m.aLayout), uintptr(m.b), uintptr(m.bLayout), m.beta,
			uintptr(m.c), uintptr(m.cLayout), uintptr(m.d), uintptr(m.dLayout),
			uintptr(unsafe.Pointer(m.algo)), uintptr(m.workspace), uintptr(m.workspaceBytes), uintptr(m.stream)))
	}
	c.algoCheck = func(lt handle, desc handle, a, b, cc, d handle, algo *matmulAlgo, found *heuristicResult) status {
		defer runtime.KeepAlive(algo)
		defer runtime.KeepAlive(found)
		return status(through.call(check, uintptr(lt), uintptr(desc), uintptr(a), uintptr(b), uintptr(cc), uintptr(d),
			uintptr(unsafe.Pointer(algo)), uintptr(unsafe.Pointer(found))))
	}
	set := func(function uintptr) func(object handle, attribute int32, value *uint64, bytes uint64) status {
		return func(object handle, attribute int32, value *uint64, bytes uint64) status {
			defer runtime.KeepAlive(value)
			return status(through.call(function,
				uintptr(object), uintptr(attribute), uintptr(unsafe.Pointer(value)), uintptr(bytes)))
		}
	}
	c.layoutSet, c.descSet = set(setLayout), set(setDesc)
	return nil
}
