//go:build linux && (amd64 || arm64) && !static

package driver

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// supported tells whether this build can load shared libraries, and so those of CUDA.
const supported = true

// OpenLibrary loads a shared library by its path, or by a name that the loader searches for. It locks the goroutine to
// its thread: the loader stores the reason of a failure for each thread, and purego reads the reason in a second call.
func OpenLibrary(path string) (uintptr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
}

// writable returns the reason why files cannot be created in a folder, or nil.
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

// lookUp returns the address of a function in a library. It locks the thread, because the loader stores the reason of a
// failure for each thread.
func lookUp(library uintptr, name string) (uintptr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	symbol, err := purego.Dlsym(library, name)
	if err != nil {
		return 0, fmt.Errorf("function %s: %w", name, err)
	}
	return symbol, nil
}

// bind sets those fields of a struct that have a tag c; the tag is the name of a function in the library. It returns
// the addresses of the functions in names, which the caller of bind calls without reflection.
func bind(library uintptr, functions any, names ...string) (symbols []uintptr, err error) {
	v := reflect.ValueOf(functions).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("c")
		if name == "" {
			continue
		}
		symbol, err := lookUp(library, name)
		if err != nil {
			return nil, err
		}
		purego.RegisterFunc(v.Field(i).Addr().Interface(), symbol)
	}
	for _, name := range names {
		symbol, err := lookUp(library, name)
		if err != nil {
			return nil, err
		}
		symbols = append(symbols, symbol)
	}
	return symbols, nil
}

// caller calls C functions without allocating. purego.SyscallN moves its list of arguments to the heap, so caller keeps
// such lists in a pool and reuses them.
type caller struct{ lists sync.Pool }

func newCaller() *caller {
	return &caller{sync.Pool{New: func() any { return new([maxArguments]uintptr) }}}
}

// maxArguments is the largest number of arguments of a function that is called through caller: cublasLtMatmul takes 16.
const maxArguments = 16

// call calls a function and returns its result. If an argument is the address of Go memory, that memory must be on the
// heap and must stay alive during the call.
func (c *caller) call(function uintptr, args ...uintptr) uintptr {
	list := c.lists.Get().(*[maxArguments]uintptr)
	defer c.lists.Put(list)
	own := list[:len(args)]
	copy(own, args)
	r, _, _ := purego.SyscallN(function, own...)
	return r
}

// BindCUDA binds the functions of a loaded libcuda. For launches, copies and events it does not use RegisterFunc,
// because the reflection in it allocates and takes longer than the driver's function.
func BindCUDA(library uintptr) (*CUDA, error) {
	d := new(CUDA)
	hot, err := bind(library, d, "cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamWaitEvent",
		"cuEventRecord", "cuEventSynchronize", "cuCtxSetCurrent")
	if err != nil {
		return nil, err
	}
	launch, up, down, wait, record, synchronize, current := hot[0], hot[1], hot[2], hot[3], hot[4], hot[5], hot[6]
	c := newCaller()
	d.LaunchKernel = func(f Handle, grid, block [3]uint32, shared uint32, stream Handle, params unsafe.Pointer) Result {
		return Result(c.call(launch, uintptr(f),
			uintptr(grid[0]), uintptr(grid[1]), uintptr(grid[2]),
			uintptr(block[0]), uintptr(block[1]), uintptr(block[2]),
			uintptr(shared), uintptr(stream), uintptr(params), 0))
	}
	d.MemcpyHtoDAsync = func(dst Pointer, src unsafe.Pointer, bytes uint64, stream Handle) Result {
		return Result(c.call(up, uintptr(dst), uintptr(src), uintptr(bytes), uintptr(stream)))
	}
	d.MemcpyDtoHAsync = func(dst unsafe.Pointer, src Pointer, bytes uint64, stream Handle) Result {
		return Result(c.call(down, uintptr(dst), uintptr(src), uintptr(bytes), uintptr(stream)))
	}
	d.StreamWaitEvent = func(stream, event Handle, flags uint32) Result {
		return Result(c.call(wait, uintptr(stream), uintptr(event), uintptr(flags)))
	}
	d.EventRecord = func(event, stream Handle) Result { return Result(c.call(record, uintptr(event), uintptr(stream))) }
	d.EventSynchronize = func(event Handle) Result { return Result(c.call(synchronize, uintptr(event))) }
	d.CtxSetCurrent = func(context Handle) Result { return Result(c.call(current, uintptr(context))) }
	return d, nil
}

// BindCublasLt binds the functions of a loaded libcublasLt. For the functions that are called while batches run, it
// does not use RegisterFunc, whose reflection is slow. Go memory passed to these functions is on the heap, because the
// compiler assumes that the arguments of a function in a struct field escape.
func BindCublasLt(library uintptr) (*CublasLt, error) {
	c := new(CublasLt)
	hot, err := bind(library, c, "cublasLtMatmul", "cublasLtMatmulAlgoCheck", "cublasLtMatrixLayoutSetAttribute",
		"cublasLtMatmulDescSetAttribute")
	if err != nil {
		return nil, err
	}
	matmul, check, setLayout, setDesc := hot[0], hot[1], hot[2], hot[3]
	through := newCaller()
	c.Matmul = func(m MatmulCall) Status {
		defer runtime.KeepAlive(m.Algo)
		return Status(through.call(matmul, uintptr(m.Handle), uintptr(m.Desc), m.Alpha,
			uintptr(m.A), uintptr(m.ALayout), uintptr(m.B), uintptr(m.BLayout), m.Beta,
			uintptr(m.C), uintptr(m.CLayout), uintptr(m.D), uintptr(m.DLayout),
			uintptr(unsafe.Pointer(m.Algo)), uintptr(m.Workspace), uintptr(m.WorkspaceBytes), uintptr(m.Stream)))
	}
	c.AlgoCheck = func(lt, desc, a, b, cc, d Handle, algo *MatmulAlgo, found *HeuristicResult) Status {
		defer runtime.KeepAlive(algo)
		defer runtime.KeepAlive(found)
		return Status(through.call(check, uintptr(lt), uintptr(desc), uintptr(a), uintptr(b), uintptr(cc), uintptr(d),
			uintptr(unsafe.Pointer(algo)), uintptr(unsafe.Pointer(found))))
	}
	set := func(function uintptr) func(object Handle, attribute int32, value *uint64, bytes uint64) Status {
		return func(object Handle, attribute int32, value *uint64, bytes uint64) Status {
			defer runtime.KeepAlive(value)
			return Status(through.call(function,
				uintptr(object), uintptr(attribute), uintptr(unsafe.Pointer(value)), uintptr(bytes)))
		}
	}
	c.LayoutSet, c.DescSet = set(setLayout), set(setDesc)
	return c, nil
}

// BindNVML binds the functions of a loaded libnvidia-ml.
func BindNVML(library uintptr) (*NVML, error) {
	n := new(NVML)
	_, err := bind(library, n)
	return n, err
}
