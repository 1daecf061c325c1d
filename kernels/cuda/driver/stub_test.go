//go:build linux && (amd64 || arm64) && !static

package driver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// stub compiles testdata/stub.c, whose functions have the signatures of the CUDA headers, and binds it as libcuda and
// as libcublasLt. seen returns the first n arguments of the last call, as C received them.
func stub(t *testing.T) (d *CUDA, c *CublasLt, seen func(n int) []uint64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stub.so")
	compile(t, "testdata/stub.c", path)
	library, err := OpenLibrary(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err = BindCUDA(library)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = BindCublasLt(library); err != nil {
		t.Fatal(err)
	}
	var at func(int32) uint64
	purego.RegisterLibFunc(&at, library, "seen_at")
	return d, c, func(n int) []uint64 {
		list := make([]uint64, n)
		for i := range list {
			list[i] = at(int32(i))
		}
		return list
	}
}

// compile compiles a C file to a shared library. It skips the test if there is no compiler.
func compile(t *testing.T, source, library string, flags ...string) {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler to build a library to call")
	}
	if err := os.MkdirAll(filepath.Dir(library), 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"}, flags...)
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestDriverCallsArriveInC calls the functions of the CUDA driver through purego. C must receive every argument in the
// right parameter.
func TestDriverCallsArriveInC(t *testing.T) {
	d, _, seen := stub(t)
	arrives := func(what string, want ...uint64) {
		t.Helper()
		if got := seen(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: C is given %#x, not %#x", what, got, want)
		}
	}
	if r := d.Init(5); r != 100 {
		t.Errorf("cuInit gives %d", r)
	}
	arrives("cuInit", 5)
	var version, count, device, value int32
	var total, free uint64
	name := make([]byte, 16)
	if r := d.DriverGetVersion(&version) | d.DeviceGetCount(&count) | d.DeviceGet(&device, 2); r != 0 || version != 12040 || count != 3 || device != 42 {
		t.Errorf("version %d, device %d of %d: %d", version, device, count, r)
	}
	if d.DeviceGetName(&name[0], 16, 42); name[0] != 'G' {
		t.Errorf("the name is %q", name)
	}
	arrives("cuDeviceGetName", 16, 42)
	d.DeviceGetAttribute(&value, AttributeMajor, 42)
	if d.DeviceTotalMem(&total, 42); value != 7542 || total != 42<<33 {
		t.Errorf("attribute %d, %d bytes", value, total)
	}
	if d.MemGetInfo(&free, &total); free != 1<<40 || total != 1<<41 {
		t.Errorf("%d bytes of %d are free", free, total)
	}
	var context, stream, event, module, function Handle
	d.DevicePrimaryCtxRetain(&context, 42)
	d.CtxSetCurrent(context)
	arrives("cuCtxSetCurrent", 0x102a)
	d.DevicePrimaryCtxRelease(42)
	arrives("cuDevicePrimaryCtxRelease", 42)
	d.StreamCreate(&stream, StreamNonBlocking)
	arrives("cuStreamCreate", 1)
	d.EventCreate(&event, EventBlockingSync|EventDisableTiming)
	arrives("cuEventCreate", 3)
	var ms float32
	if r := d.EventElapsedTime(&ms, event, event+8); r != 0 || ms != 1.5 {
		t.Errorf("cuEventElapsedTime gives %d and %v", r, ms)
	}
	arrives("cuEventElapsedTime", 0x5000, 0x5008)
	if r := d.EventSynchronize(event); r != 700 {
		t.Errorf("cuEventSynchronize gives %d", r)
	}
	d.EventRecord(event, stream)
	arrives("cuEventRecord", 0x5000, 0x4000)
	d.StreamWaitEvent(stream, event, 3)
	arrives("cuStreamWaitEvent", 0x4000, 0x5000, 3)
	for what, call := range map[string]func() Result{
		"cuStreamSynchronize": func() Result { return d.StreamSynchronize(99) }, "cuStreamDestroy": func() Result { return d.StreamDestroy(99) },
		"cuEventDestroy": func() Result { return d.EventDestroy(99) }, "cuMemFree": func() Result { return d.MemFree(99) },
		"cuModuleUnload": func() Result { return d.ModuleUnload(99) },
	} {
		if r := call(); r != 0 {
			t.Errorf("%s gives %d", what, r)
		}
		arrives(what, 99)
	}

	var p Pointer
	if d.MemAlloc(&p, 1<<40); p != 0x7f1234567890 {
		t.Errorf("cuMemAlloc gives %#x", p)
	}
	arrives("cuMemAlloc", 1<<40)
	var host unsafe.Pointer
	d.MemAllocHost(&host, 8<<10)
	defer d.MemFreeHost(host)
	words := unsafe.Slice((*uint64)(host), 1<<10)
	words[2] = 0x4847464544434241
	d.MemcpyHtoDAsync(p, unsafe.Add(host, 16), 8, stream)
	arrives("cuMemcpyHtoDAsync", uint64(p), 0x4847464544434241, 8, 0x4000)
	d.MemcpyDtoHAsync(host, p, 8, 0x4001)
	if arrives("cuMemcpyDtoHAsync", 8, 0x4001); words[0] != uint64(p) {
		t.Errorf("cuMemcpyDtoHAsync brings %#x", words[0])
	}

	keys, values := []int32{JITErrorLog, JITErrorLogBytes}, []uintptr{uintptr(host), 8 << 10}
	image, gemm := []byte("P\x00"), []byte("gemm\x00")
	d.ModuleLoadDataEx(&module, &image[0], 2, &keys[0], &values[0])
	arrives("cuModuleLoadDataEx", 'P', 2, JITErrorLog, JITErrorLogBytes, uint64(uintptr(host)), 8<<10)
	d.ModuleGetFunction(&function, module, &gemm[0])
	arrives("cuModuleGetFunction", 0x2000, 'g', 'e', 'm')
	d.FuncSetAttribute(function, FunctionMaxShared, 65536)
	arrives("cuFuncSetAttribute", 0x3000, FunctionMaxShared, 65536)
	copy(words, []uint64{1<<45 + 3, 0xfffffff9, 0x3fc00000})
	words[15] = 9
	for i := range uintptr(16) {
		words[16+i] = uint64(uintptr(host) + 8*i)
	}
	d.LaunchKernel(function, [3]uint32{70000, 12, 1}, [3]uint32{128, 1, 1}, 65536, stream, unsafe.Pointer(&words[16]))
	arrives("cuLaunchKernel", 0x3000, 70000, 12, 1, 128, 1, 1, 65536, 0x4000, 0, 1<<45+3, 0xfffffff9, 0x3fc00000, 9)
}

// TestCublasCallsArriveInC calls the functions of cuBLASLt through purego. C must receive every argument in the right
// parameter.
func TestCublasCallsArriveInC(t *testing.T) {
	d, c, seen := stub(t)
	arrives := func(what string, want ...uint64) {
		t.Helper()
		if got := seen(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: C is given %#x, not %#x", what, got, want)
		}
	}
	if c.Version() != 120405 {
		t.Errorf("the version is %d", c.Version())
	}
	var host unsafe.Pointer
	d.MemAllocHost(&host, 8)
	defer d.MemFreeHost(host)
	*(*[2]float32)(host) = [2]float32{1, 0.5}
	var lt, layout, desc, preference Handle
	c.Create(&lt)
	c.DescCreate(&desc, Compute32F, TypeFloat32)
	arrives("cublasLtMatmulDescCreate", Compute32F, TypeFloat32)
	if c.PreferenceCreate(&preference); lt != 0x6000 || desc != 0x7000 || preference != 0x9000 {
		t.Errorf("the objects are %#x, %#x, %#x", lt, desc, preference)
	}
	for what, destroy := range map[string]func(Handle) Status{"cublasLtDestroy": c.Destroy, "cublasLtMatmulDescDestroy": c.DescDestroy,
		"cublasLtMatrixLayoutDestroy": c.LayoutDestroy, "cublasLtMatmulPreferenceDestroy": c.PreferenceDestroy} {
		destroy(99)
		arrives(what, 99)
	}
	c.LayoutCreate(&layout, TypeBfloat16, 1<<33, 7, -1)
	arrives("cublasLtMatrixLayoutCreate", TypeBfloat16, 1<<33, 7, 1<<64-1)
	value := uint64(1)<<40 + 5
	c.LayoutSet(layout, LayoutCols, &value, 8)
	arrives("cublasLtMatrixLayoutSetAttribute", 0x8000, LayoutCols, 1<<40+5, 8)
	c.DescSet(0x7000, DescTransA, &value, 4)
	arrives("cublasLtMatmulDescSetAttribute", 0x7000, DescTransA, 5, 4)
	c.PreferenceSet(0x9000, PreferenceWorkspace, &value, 8)
	arrives("cublasLtMatmulPreferenceSetAttribute", 0x9000, PreferenceWorkspace, 1<<40+5, 8)

	found, count := make([]HeuristicResult, 3), int32(0)
	c.AlgoHeuristic(1, 2, 3, 4, 5, 6, 7, 3, &found[0], &count)
	arrives("cublasLtMatmulAlgoGetHeuristic", 1, 2, 3, 4, 5, 6, 7, 3)
	if f := found[2]; count != 3 || f.Algo[0] != 102 || f.Workspace != 202 || f.State != 2 || f.Waves != 0.5 {
		t.Errorf("the third of %d algorithms is %+v", count, f)
	}
	written := uint64(0)
	value = 0
	if c.AlgoConfig(&found[2].Algo, ConfigSplitK, &value, 4, &written); value != 104 || written != 4 {
		t.Errorf("an attribute is %d in %d bytes", value, written)
	}
	algo := MatmulAlgo{7: 99}
	var result HeuristicResult
	c.AlgoCheck(1, 2, 3, 4, 5, 6, &algo, &result)
	arrives("cublasLtMatmulAlgoCheck", 1, 2, 3, 4, 5, 6, 99)
	if result.Workspace != 4321 {
		t.Errorf("a check gives %+v", result)
	}
	s := c.Matmul(MatmulCall{
		Handle: 1, Desc: 2, Alpha: uintptr(host), A: 1 << 46, ALayout: 4, B: 5, BLayout: 6, Beta: uintptr(host) + 4,
		C: 8, CLayout: 9, D: 10, DLayout: 11, Algo: &algo, Workspace: 13, WorkspaceBytes: 14, Stream: 15,
	})
	arrives("cublasLtMatmul", 1, 2, 0x3f800000, 1<<46, 4, 5, 6, 0x3f000000, 8, 9, 10, 11, 99, 13, 14, 15)
	if s != 13 {
		t.Errorf("cublasLtMatmul gives %d", s)
	}
}

func TestLibraryWithoutAFunction(t *testing.T) {
	library, err := OpenLibrary("libc.so.6")
	if err != nil {
		t.Skip("no C library to try")
	}
	if _, err := BindCUDA(library); err == nil {
		t.Error("the C library passes for a driver")
	}
	if _, err := BindCublasLt(library); err == nil {
		t.Error("the C library passes for cuBLAS")
	}
}

// TestLoaderSaysWhy checks that an error contains the loader's reason, while many goroutines load libraries. If
// OpenLibrary did not lock the thread, the reason would sometimes be missing.
func TestLoaderSaysWhy(t *testing.T) {
	library, err := OpenLibrary("libc.so.6")
	if err != nil {
		t.Skip("no C library to ask")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 2000 {
				if _, err := OpenLibrary("/nowhere/libcuda.so.1"); err == nil || !strings.Contains(err.Error(), "No such file") {
					t.Errorf("a library that is not there: %v", err)
					return
				}
				if _, err := lookUp(library, "no_such_function"); err == nil || !strings.Contains(err.Error(), "undefined symbol") {
					t.Errorf("a function that is not there: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
}

// TestCompilerBesideTheDriver checks a driver in a folder that the loader does not search. The driver must find its PTX
// compiler by name. A missing compiler must not be an error.
func TestCompilerBesideTheDriver(t *testing.T) {
	const name = "libnvidia-ptxjitcompiler.so.1"
	tr := newTree(t)
	var driver uintptr
	tr.Open = func(path string) (uintptr, error) {
		if !filepath.IsAbs(path) {
			return 0, errors.New("not known by name")
		}
		library, err := OpenLibrary(path)
		if filepath.Base(path) == "libcuda.so.1" {
			driver = library
		}
		return library, err
	}
	folder := filepath.Join(tr.Root, "usr/local/nvidia/lib64")
	compile(t, "testdata/stub.c", filepath.Join(folder, "libcuda.so.1"))
	if _, _, err := tr.FindCUDA(); err != nil {
		t.Fatalf("without a compiler: %v", err)
	}
	compile(t, "testdata/stub.c", filepath.Join(folder, name), "-Wl,-soname,"+name)
	if _, _, err := tr.FindCUDA(); err != nil {
		t.Fatal(err)
	}
	var opens func(name string) int32
	purego.RegisterLibFunc(&opens, driver, "opens")
	if opens(name) != 1 {
		t.Errorf("the driver does not find %s by name", name)
	}
	if opens("libnvidia-nothing.so.1") != 0 {
		t.Error("the driver finds a library that is nowhere")
	}
}

// TestKernelCache checks that KernelCache returns the folder that the environment variables determine, or the reason
// why the driver cannot cache kernels.
func TestKernelCache(t *testing.T) {
	tr := newTree(t, "file")
	below := func(name string) string { return filepath.Join(tr.Root, name) }
	for _, c := range []struct {
		environment map[string]string
		folder, err string
	}{
		{map[string]string{"HOME": tr.Root}, below(".nv/ComputeCache"), ""},
		{map[string]string{"HOME": below("file"), "CUDA_CACHE_PATH": below("a/b")}, below("a/b"), ""},
		{map[string]string{"HOME": below("file")}, below("file/.nv/ComputeCache"), "cannot be written (not a directory); set CUDA_CACHE_PATH"},
		{nil, "", "HOME is not set"},
		{map[string]string{"HOME": tr.Root, "CUDA_CACHE_DISABLE": "1"}, "", "CUDA_CACHE_DISABLE is 1"},
	} {
		tr.environment = c.environment
		folder, err := tr.KernelCache()
		if folder != c.folder || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: %q, %v", c.environment, folder, err)
		}
	}
}

func TestLayoutsMatchTheHeaders(t *testing.T) {
	var r HeuristicResult
	if unsafe.Sizeof(r) != 96 || unsafe.Sizeof(r.Algo) != 64 || unsafe.Offsetof(r.Workspace) != 64 || unsafe.Offsetof(r.State) != 72 {
		t.Errorf("a heuristic result has %d bytes, %d of them an algorithm", unsafe.Sizeof(r), unsafe.Sizeof(r.Algo))
	}
}
