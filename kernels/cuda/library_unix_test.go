//go:build linux && (amd64 || arm64)

package cuda

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

// stub compiles testdata/stub.c, whose functions have the signatures of the
// CUDA headers, and binds it as both libraries. seen gives the arguments that
// arrived in the last call.
func stub(t *testing.T) (d *driver, c *cublasLt, seen func(n int) []uint64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stub.so")
	compile(t, "testdata/stub.c", path)
	library, err := openLibrary(path)
	if err != nil {
		t.Fatal(err)
	}
	d, c = new(driver), new(cublasLt)
	if err := errors.Join(bindDriver(library, d), bindCublas(library, c)); err != nil {
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

// compile makes a shared library of a C file, or skips the test.
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

// TestDriverCallsArriveInC calls through purego what the other tests fake.
func TestDriverCallsArriveInC(t *testing.T) {
	d, _, seen := stub(t)
	arrives := func(what string, want ...uint64) {
		t.Helper()
		if got := seen(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: C is given %#x, not %#x", what, got, want)
		}
	}
	if r := d.cuInit(5); r != 100 {
		t.Errorf("cuInit gives %d", r)
	}
	arrives("cuInit", 5)
	if _, _, err := d.start(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a device: %v", err)
	}
	found, err := d.describe(2, 12040)
	if err != nil || found.Name != "G" || found.id != 42 || found.Major != 7542 || found.Minor != 7642 || found.TotalMemory != 42<<33 {
		t.Errorf("a device is described as %+v: %v", found, err)
	}
	var ms float32
	if r := d.cuEventElapsedTime(&ms, 0x5000, 0x5008); r != 0 || ms != 1.5 {
		t.Errorf("cuEventElapsedTime gives %d and %v", r, ms)
	}
	arrives("cuEventElapsedTime", 0x5000, 0x5008)
	if r := d.cuEventSynchronize(0x5000); r != 700 {
		t.Errorf("cuEventSynchronize gives %d", r)
	}
	d.cuEventRecord(0x5000, 0x4000)
	arrives("cuEventRecord", 0x5000, 0x4000)
	d.cuStreamWaitEvent(0x4000, 0x5000, 3)
	arrives("cuStreamWaitEvent", 0x4000, 0x5000, 3)

	dev := &device{drv: d}
	p, err := dev.alloc(1 << 40)
	if err != nil || p != 0x7f1234567890 {
		t.Errorf("alloc gives %#x: %v", p, err)
	}
	arrives("cuMemAlloc", 1<<40)
	host, err := dev.pin(8 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.unpin(host)
	copy(host.bytes[16:], "ABCDEFGH")
	dev.upload(p, host, 16, 8, 0x4000)
	arrives("upload", uint64(p), 0x4847464544434241, 8, 0x4000)
	dev.download(host, 0, p, 8, 0x4001)
	if got := *(*uint64)(host.at); got != uint64(p) {
		t.Errorf("download brings %#x", got)
	}

	if dev.params, err = dev.newParameters(); err != nil {
		t.Fatal(err)
	}
	defer dev.unpin(dev.params.memory)
	dev.code = &code{drv: d, images: []image{{name: "i", kernels: []string{"gemm"}, text: func() ([]byte, error) { return []byte("P\x00"), nil }}},
		modules: map[string]handle{}, functions: map[string]handle{}, shared: map[string]uint32{}, log: host}
	if _, err := dev.code.load(dev.code.images[0]); err != nil {
		t.Fatal(err)
	}
	arrives("cuModuleLoadDataEx", 'P', 2, jitErrorLog, jitErrorLogBytes, uint64(uintptr(host.at)), 8<<10)
	if f, err := dev.code.function("gemm", 65536); err != nil || f != 0x3000 {
		t.Errorf("function gives %#x: %v", f, err)
	}
	arrives("cuFuncSetAttribute", 0x3000, functionMaxShared, 65536)
	params := make([]param, 16)
	params[0], params[1], params[2], params[15] = ptr(1<<45+3), num(-7), fl(1.5), ptr(9)
	if err := dev.launch(0x4000, kernel{"gemm", 0x3000}, geometry{x: 70000, y: 12, block: 128, shared: 65536}, params...); err != nil {
		t.Error(err)
	}
	arrives("cuLaunchKernel", 0x3000, 70000, 12, 1, 128, 1, 1, 65536, 0x4000, 0, 1<<45+3, 0xfffffff9, 0x3fc00000, 9)
}

// TestCublasCallsArriveInC does the same for the products.
func TestCublasCallsArriveInC(t *testing.T) {
	d, c, seen := stub(t)
	arrives := func(what string, want ...uint64) {
		t.Helper()
		if got := seen(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: C is given %#x, not %#x", what, got, want)
		}
	}
	if c.version() != 120405 {
		t.Errorf("the version is %d", c.version())
	}
	dev := &device{drv: d}
	p, err := dev.newParameters()
	if err != nil {
		t.Fatal(err)
	}
	defer dev.unpin(p.memory)
	var layout handle
	c.layoutCreate(&layout, typeBfloat16, 1<<33, 7, -1)
	arrives("cublasLtMatrixLayoutCreate", typeBfloat16, 1<<33, 7, 1<<64-1)
	value := uint64(1)<<40 + 5
	c.layoutSet(layout, layoutCols, &value, 8)
	arrives("cublasLtMatrixLayoutSetAttribute", 0x8000, layoutCols, 1<<40+5, 8)
	c.descSet(0x7000, descTransA, &value, 4)
	arrives("cublasLtMatmulDescSetAttribute", 0x7000, descTransA, 5, 4)
	c.preferenceSet(0x9000, preferenceWorkspace, &value, 8)
	arrives("cublasLtMatmulPreferenceSetAttribute", 0x9000, preferenceWorkspace, 1<<40+5, 8)

	found, count := make([]heuristicResult, 3), int32(0)
	c.heuristic(1, 2, 3, 4, 5, 6, 7, 3, &found[0], &count)
	arrives("cublasLtMatmulAlgoGetHeuristic", 1, 2, 3, 4, 5, 6, 7, 3)
	if f := found[2]; count != 3 || f.algo[0] != 102 || f.workspace != 202 || f.state != 2 || f.waves != 0.5 {
		t.Errorf("the third of %d algorithms is %+v", count, f)
	}
	written := uint64(0)
	value = 0
	if c.algoConfig(&found[2].algo, configSplitK, &value, 4, &written); value != 104 || written != 4 {
		t.Errorf("an attribute is %d in %d bytes", value, written)
	}
	algo := matmulAlgo{7: 99}
	var result heuristicResult
	c.algoCheck(1, 2, 3, 4, 5, 6, &algo, &result)
	arrives("cublasLtMatmulAlgoCheck", 1, 2, 3, 4, 5, 6, 99)
	if result.workspace != 4321 {
		t.Errorf("a check gives %+v", result)
	}
	p.scalar[0], p.scalar[1] = 1, 0.5
	s := c.matmul(matmulCall{
		handle: 1, desc: 2, alpha: p.scalarAddress(), a: 1 << 46, aLayout: 4, b: 5, bLayout: 6, beta: p.scalarAddress() + unsafe.Sizeof(p.scalar[0]),
		c: 8, cLayout: 9, d: 10, dLayout: 11, algo: &algo, workspace: 13, workspaceBytes: 14, stream: 15,
	})
	arrives("cublasLtMatmul", 1, 2, 0x3f800000, 1<<46, 4, 5, 6, 0x3f000000, 8, 9, 10, 11, 99, 13, 14, 15)
	if s != 13 {
		t.Errorf("cublasLtMatmul gives %d", s)
	}
}

func TestLibraryWithoutAFunction(t *testing.T) {
	library, err := openLibrary("libc.so.6")
	if err != nil {
		t.Skip("no C library to try")
	}
	if err := bindDriver(library, new(driver)); err == nil {
		t.Error("the C library passes for a driver")
	}
	if err := bindCublas(library, new(cublasLt)); err == nil {
		t.Error("the C library passes for cuBLAS")
	}
}

// TestLoaderSaysWhy: the reason of the loader arrives however busy the threads
// are. Without the thread held it is missing now and then, and more often the
// more goroutines ask.
func TestLoaderSaysWhy(t *testing.T) {
	library, err := openLibrary("libc.so.6")
	if err != nil {
		t.Skip("no C library to ask")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 2000 {
				if _, err := openLibrary("/nowhere/libcuda.so.1"); err == nil || !strings.Contains(err.Error(), "No such file") {
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

// TestCompilerBesideTheDriver: a driver that the loader does not know by name
// finds its compiler of PTX by name all the same, and none is no error.
func TestCompilerBesideTheDriver(t *testing.T) {
	const name = "libnvidia-ptxjitcompiler.so.1"
	tr := newTree(t)
	var driver uintptr
	tr.open = func(path string) (uintptr, error) {
		if !filepath.IsAbs(path) {
			return 0, errors.New("not known by name")
		}
		library, err := openLibrary(path)
		if filepath.Base(path) == "libcuda.so.1" {
			driver = library
		}
		return library, err
	}
	folder := filepath.Join(tr.root, "usr/local/nvidia/lib64")
	compile(t, "testdata/stub.c", filepath.Join(folder, "libcuda.so.1"))
	if _, _, err := tr.findDriver(); err != nil {
		t.Fatalf("without a compiler: %v", err)
	}
	compile(t, "testdata/stub.c", filepath.Join(folder, name), "-Wl,-soname,"+name)
	if _, _, err := tr.findDriver(); err != nil {
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

// TestKernelCache: where the driver can keep no compiled kernels the long
// report says so.
func TestKernelCache(t *testing.T) {
	tr := newTree(t, "file")
	below := func(name string) string { return filepath.Join(tr.root, name) }
	for _, c := range []struct {
		environment map[string]string
		folder, err string
	}{
		{map[string]string{"HOME": tr.root}, below(".nv/ComputeCache"), ""},
		{map[string]string{"HOME": below("file"), "CUDA_CACHE_PATH": below("a/b")}, below("a/b"), ""},
		{map[string]string{"HOME": below("file")}, below("file/.nv/ComputeCache"), "cannot be written (not a directory); set CUDA_CACHE_PATH"},
		{nil, "", "HOME is not set"},
		{map[string]string{"HOME": tr.root, "CUDA_CACHE_DISABLE": "1"}, "", "CUDA_CACHE_DISABLE is 1"},
	} {
		tr.environment = c.environment
		folder, err := tr.kernelCache()
		if folder != c.folder || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: %q, %v", c.environment, folder, err)
		}
		r := Report{DriverVersion: 12040, KernelCache: folder, KernelCacheErr: err}
		want := "compiled kernels: kept by the driver in " + c.folder
		if err != nil {
			want = "compiled kernels: not kept, every start compiles them again: " + err.Error()
		}
		if !strings.Contains(r.Details(), want) || strings.Contains(r.String(), "compiled kernels") {
			t.Errorf("%v: the report is\n%s", c.environment, r.Details())
		}
	}
}
