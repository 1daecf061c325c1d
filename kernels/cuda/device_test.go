package cuda

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"seqembed/kernels"
	"seqembed/kernels/cuda/driver"
	"seqembed/kernels/cuda/gpu"
)

// TestUnusableMachinesAreOneSentence checks that Open returns an error that wraps ErrUnavailable and says the reason in
// one line, if the machine has no usable driver or device.
func TestUnusableMachinesAreOneSentence(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*fakeGPU)
		ordinal int
		want    string
	}{
		"no device":     {func(f *fakeGPU) { f.fails["cuInit"] = driver.NoDevice }, 0, "there is no NVIDIA GPU"},
		"none visible":  {func(f *fakeGPU) { f.names = nil }, 0, "there is no NVIDIA GPU"},
		"broken driver": {func(f *fakeGPU) { f.fails["cuInit"] = 803 }, 0, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"},
		"ordinal":       {func(f *fakeGPU) {}, 3, "there is no device 3: 1 visible"},
		"old device":    {func(f *fakeGPU) { f.major, f.minor = 7, 5 }, 0, "Fake H200 (device 0) has compute capability 7.5, and 8.0 is the least"},
		"old driver":    {func(f *fakeGPU) { f.version = 10020 }, 0, "it supports CUDA 10.2, and the kernels (PTX 7.0) need CUDA 11.0, driver 450 or newer"},
	} {
		f := newFake(t)
		c.prepare(f)
		_, err := open(f.driver(), c.ordinal, Options{}, f.images(), noCublas)
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		f.checkFreed()
	}
}

// TestOpeningFailsCleanly makes driver calls in Open fail, one at a time. The error must contain the driver's error
// code, and wrap kernels.ErrOutOfMemory only if the device is out of memory. The context and pinned memory must be
// released.
func TestOpeningFailsCleanly(t *testing.T) {
	for _, call := range []string{"cuCtxSetCurrent", "cuMemAllocHost", "retain"} {
		f := newFake(t)
		f.fails[call] = driver.OutOfMemory
		_, err := open(f.driver(), 0, Options{}, f.images(), noCublas)
		onDevice := call != "cuMemAllocHost" // a smaller batch may help only if the device is out of memory
		if err == nil || errors.Is(err, kernels.ErrOutOfMemory) != onDevice || !strings.Contains(err.Error(), "CUDA_ERROR_OUT_OF_MEMORY") {
			t.Errorf("a failing %s gives %v", call, err)
		}
		if len(f.hosts) > 0 || call != "retain" && f.retained != 0 {
			t.Errorf("a failing %s leaves something behind", call)
		}
	}
}

// TestCompilerErrors checks that the error for a kernel whose PTX the driver refuses contains the compiler's message in
// one line.
func TestCompilerErrors(t *testing.T) {
	f := newFake(t)
	f.fails["cuModuleLoadDataEx"], f.jitLog = 218, "ptxas fatal:\n  bad  register"
	b := openFake(t, f, kernels.BF16, noCublas)
	n := newNet(t, b)
	n.Output(n.tokens(8))
	_, err := b.Compile(n.Program, kernels.Limits{Tokens: 4, Sequences: 1})
	const want = "cuModuleLoadDataEx of all.ptx: CUDA_ERROR_INVALID_PTX (218): ptxas fatal: bad register"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if err := errors.Join(n.model.Close(), b.Close()); err != nil {
		t.Error(err)
	}
}

// TestModulesAreLoadedOnce checks that the driver compiles only the modules whose kernels are used, and each of them
// once.
func TestModulesAreLoadedOnce(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.BF16, noCublas)
	count := func() int { return strings.Count(strings.Join(f.calls, " "), "cuModuleLoadDataEx") }
	if count() != 0 {
		t.Error("a module is compiled before it is needed")
	}
	for range 2 {
		n := newNet(t, b)
		n.Output(n.norm(n.tokens(16)))
		n.run(b, batchOf(5), kernels.Limits{Tokens: 5, Sequences: 1})
	}
	if count() != 1 {
		t.Errorf("one module is compiled %d times", count())
	}
	b.Close()
}

func TestNameSaysWhatDecidesTheBits(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.Auto, newFakeCublas(f).find)
	if got, want := b.Name(), "cuda Fake H200, sm_90, driver CUDA 12.4, cuBLASLt 12.4.5, bf16"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	b.Close()
	b = openFake(t, newFake(t), kernels.FP32, noCublas)
	if got, want := b.Name(), "cuda Fake H200, sm_90, driver CUDA 12.4, own products, fp32"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if err := b.Cublas().Err; !errors.Is(err, errNoCublas) {
		t.Errorf("without cuBLAS: %v", err)
	}
	b.Close()
}

// TestClosedBackend checks that a closed backend and its runner return errors.
func TestClosedBackend(t *testing.T) {
	f := newFake(t)
	b := openFake(t, f, kernels.BF16, noCublas)
	n := newNet(t, b)
	n.Output(n.tokens(8))
	limits := kernels.Limits{Tokens: 4, Sequences: 1}
	r := n.compile(b, limits)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, wait := n.start(r, batchOf(2)); true {
		if err := wait(); !errors.Is(err, gpu.ErrClosed) {
			t.Errorf("a runner of a closed backend says %v", err)
		}
	}
	if _, err := b.Compile(n.Program, limits); !errors.Is(err, gpu.ErrClosed) {
		t.Errorf("a closed backend compiles: %v", err)
	}
	if err := errors.Join(r.Close(), n.model.Close()); err != nil {
		t.Errorf("closing late: %v", err)
	}
}

// TestDevices checks that describe lists the devices of a driver, that askMemory finds the free memory of one, and that
// devices with a compute capability that is too low do not count as usable.
func TestDevices(t *testing.T) {
	f := newFake(t)
	f.names = []string{"First", "Second"}
	version, found, err := describe(f.driver(), f.images())
	if err != nil || version != 12040 || len(found) != 2 || found[1].Name != "Second" || !found[1].Tested() {
		t.Fatalf("%d, %v, %v", version, found, err)
	}
	if found[1].askMemory(f.driver(), f.images()); found[1].FreeMemory != f.free || found[1].Err != nil {
		t.Errorf("the second device is %+v", found[1])
	}
	if usable := (Report{Devices: found}).Usable(); !slices.Equal(usable, []int{0, 1}) {
		t.Errorf("usable are %v", usable)
	}
	f.checkFreed()
	f.major = 6
	if _, found, _ := describe(f.driver(), f.images()); len((Report{Devices: found}).Usable()) != 0 {
		t.Error("an old device counts as usable")
	}
}

// TestReportWithoutDriver checks that the report of a machine without a driver lists every place that was searched for
// libraries. If the user has turned cuBLAS off, no place may be searched for it.
func TestReportWithoutDriver(t *testing.T) {
	p := driver.Places{Root: t.TempDir(), Getenv: func(string) string { return "" }, Open: func(path string) (uintptr, error) {
		return 0, errors.New(path + ": cannot open shared object file: No such file or directory")
	}}
	r := devices(p)
	if len(r.Usable()) > 0 || !errors.Is(r.Err, ErrUnavailable) || len(r.DriverSearch) != 5 || len(r.Cublas.Searched) < 10 || r.DriverVersion != "" {
		t.Errorf("the report is %+v", r)
	}
	p.Getenv = func(name string) string { return map[string]string{cublasVariable: "none"}[name] }
	if r := devices(p); !errors.Is(r.Cublas.Err, ErrCublasOff) || len(r.Cublas.Searched) > 0 {
		t.Errorf("%s=none gives %+v", cublasVariable, r.Cublas)
	}
}

var errNoCublas = errors.New("no cuBLAS")
