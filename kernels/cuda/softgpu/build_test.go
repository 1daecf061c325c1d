//go:build linux

package softgpu

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// kernelVariable is the environment variable that names the kernel to run. A fault in a kernel of testdata/faults.ptx
// makes the device unusable, so such a kernel runs in a child process. The child is this test binary with the variable
// set.
const kernelVariable = "SOFTGPU_TEST_KERNEL"

// ptxVariable is the environment variable for the PTX file that contains the kernel, if that is not
// testdata/faults.ptx.
const ptxVariable = "SOFTGPU_TEST_PTX"

func TestMain(m *testing.M) {
	if kernel := os.Getenv(kernelVariable); kernel != "" {
		out, err := launch(os.Getenv("SOFTGPU_TEST_FOLDER"), kernel)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Stdout.Write(out)
		os.Exit(0)
	}
	code := m.Run()
	if dir, err := faults(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// faults builds a software GPU with the kernels of testdata/faults.ptx.
var faults = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("testdata/faults.ptx")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "softgpu")
	if err != nil {
		return "", err
	}
	return dir, buildBeside(dir, string(text))
})

// buildBeside builds a module for each PTX text in the folder dir. It first copies the two libraries from the folder of
// Committed to dir, because compiling them again would take ten seconds.
func buildBeside(dir string, ptx ...string) error {
	committed, err := Committed()
	if err != nil {
		return err
	}
	for _, name := range []string{driverLibrary, cublasLibrary} {
		for _, file := range []string{name, name + ".key"} {
			content, err := os.ReadFile(filepath.Join(committed, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), content, 0o666); err != nil {
				return err
			}
		}
	}
	return Build(dir, ptx...)
}

// count is the number of floats in the argument of the kernels in testdata/faults.cu.
const count = 512

// launch runs a kernel on the values 0, 1, 2, … and returns its results. A kernel runs with one warp, or with two if it
// is in the switch below.
func launch(folder, kernel string) ([]byte, error) {
	runtime.LockOSThread() // a context is current on one thread
	defer runtime.UnlockOSThread()
	library, err := purego.Dlopen(filepath.Join(folder, driverLibrary), purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	failed := error(nil)
	call := func(name string, args ...uintptr) {
		if failed != nil {
			return
		}
		symbol, err := purego.Dlsym(library, name)
		if err != nil {
			failed = err
			return
		}
		if r, _, _ := purego.SyscallN(symbol, args...); int32(r) != 0 {
			failed = fmt.Errorf("%s returns %d", name, int32(r))
		}
	}
	text, err := os.ReadFile(cmp.Or(os.Getenv(ptxVariable), "testdata/faults.ptx"))
	if err != nil {
		return nil, err
	}
	text = append(text, 0)
	name := append([]byte(kernel), 0)
	threads := uintptr(32)
	switch kernel {
	case "rotate_right", "rotate_without_barrier", "reuse_right", "reuse_too_early", "half_at_barrier":
		threads = 64
	}
	// C writes these variables during calls. They are a single allocation on the heap, so that none of them moves.
	v := new(struct {
		context, module, function, stream, device, host uintptr
		parameters                                      [1]uintptr
	})
	at := func(p *uintptr) uintptr { return uintptr(unsafe.Pointer(p)) }
	call("cuInit", 0)
	call("cuDevicePrimaryCtxRetain", at(&v.context), 0)
	call("cuCtxSetCurrent", v.context)
	call("cuModuleLoadDataEx", at(&v.module), uintptr(unsafe.Pointer(&text[0])), 0, 0, 0)
	call("cuModuleGetFunction", at(&v.function), v.module, uintptr(unsafe.Pointer(&name[0])))
	call("cuStreamCreate", at(&v.stream), 1)
	call("cuMemAlloc_v2", at(&v.device), 4*count)
	call("cuMemAllocHost_v2", at(&v.host), 4*count)
	if failed != nil {
		return nil, failed
	}
	host := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&v.host))), 4*count)
	for i := range count {
		binary.LittleEndian.PutUint32(host[4*i:], math.Float32bits(float32(i)))
	}
	v.parameters[0] = at(&v.device)
	call("cuMemcpyHtoDAsync_v2", v.device, v.host, 4*count, v.stream)
	call("cuLaunchKernel", v.function, 1, 1, 1, threads, 1, 1, 1024*dynamic(kernel), v.stream, at(&v.parameters[0]), 0)
	call("cuMemcpyDtoHAsync_v2", v.host, v.device, 4*count, v.stream)
	call("cuStreamSynchronize", v.stream)
	return bytes.Clone(host), failed
}

// dynamic returns 1 for a kernel that uses dynamic shared memory, and 0 for others.
func dynamic(kernel string) uintptr {
	for _, without := range []string{"rotate", "read_", "write_before", "misaligned", "half_", "values"} {
		if strings.HasPrefix(kernel, without) {
			return 0
		}
	}
	return 1
}

// runKernel calls launch in a child process. It returns the results of the kernel and the child's error messages.
func runKernel(t *testing.T, kernel string, seed int) (out []float32, message string) {
	t.Helper()
	folder := folder(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), kernelVariable+"="+kernel, "SOFTGPU_TEST_FOLDER="+folder, fmt.Sprint("SOFTGPU_SEED=", seed))
	var values, text bytes.Buffer
	child.Stdout, child.Stderr = &values, &text
	if err := child.Run(); err != nil {
		return nil, text.String()
	}
	out = make([]float32, values.Len()/4)
	if err := binary.Read(&values, binary.LittleEndian, out); err != nil {
		t.Fatal(err)
	}
	return out, text.String()
}

// folder returns the folder of the software GPU. It skips the test in short mode. It also skips the test if there is no
// C++ compiler, unless the variable CI is set.
func folder(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("the software GPU takes part in the full test run only")
	}
	dir, err := faults()
	if errors.Is(err, ErrNoCompiler) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMissingSynchronisationIsFound checks that a kernel without a needed barrier or wait for copies gives a wrong
// result in at least one of four orders of threads, and that the correct kernel gives no wrong result.
func TestMissingSynchronisationIsFound(t *testing.T) {
	for _, c := range []struct {
		right, wrong string
		threads      int
		want         func(i int) int
	}{
		{"rotate_right", "rotate_without_barrier", 64, func(i int) int { return (i + 33) % 64 }},
		{"reverse_right", "reverse_without_barrier", 32, func(i int) int { return 31 - i }},
		{"stage_right", "stage_without_wait", 32, func(i int) int { return 4*(31-i/4) + i%4 }},
		{"stage_right", "stage_without_barrier", 32, func(i int) int { return 4*(31-i/4) + i%4 }},
		{"reuse_right", "reuse_too_early", 64, func(i int) int { return 4*(63-i/4) + i%4 }},
	} {
		wrongs := 0
		for seed := range 4 {
			for _, kernel := range []string{c.right, c.wrong} {
				out, message := runKernel(t, kernel, seed)
				if len(out) != count {
					t.Fatalf("%s: %s", kernel, message)
				}
				differ := false
				for i := range c.threads {
					differ = differ || out[i] != float32(c.want(i))
				}
				switch {
				case differ && kernel == c.right:
					t.Errorf("%s with seed %d returns %v", kernel, seed, out[:c.threads])
				case differ:
					wrongs++
				}
			}
		}
		if wrongs == 0 {
			t.Errorf("%s has the correct result in every order", c.wrong)
		}
	}
}

// TestFaultsAreFound checks that a kernel with a fault ends with the error code that a real driver returns, and with a
// message about the fault.
func TestFaultsAreFound(t *testing.T) {
	for kernel, says := range map[string][2]string{
		"leave_copies":        {"719", "copies that it has not waited for"},
		"copy_beyond":         {"700", "outside of every allocation"},
		"read_beyond":         {"700", "outside of every allocation"},
		"read_early":          {"700", "outside of every allocation"},
		"write_before":        {"719", "a write beside an allocation"},
		"write_beyond_shared": {"700", "shared memory"},
		"misaligned":          {"716", "not aligned"},
		"half_at_barrier":     {"702", "hangs"},
		"half_in_shuffle":     {"702", "hangs"},
		"absent":              {"500", "no kernel is called absent"},
	} {
		_, message := runKernel(t, kernel, 2)
		if !strings.Contains(message, "returns "+says[0]) || !strings.Contains(message, says[1]) {
			t.Errorf("%s: want %s and %q, got %s", kernel, says[0], says[1], message)
		}
	}
}

// TestBuildKeepsWhatIsCurrent checks that a second build of the same sources builds nothing, and that a build with
// other PTX keeps the files of the first.
func TestBuildKeepsWhatIsCurrent(t *testing.T) {
	dir := folder(t)
	text, err := os.ReadFile("testdata/faults.ptx")
	if err != nil {
		t.Fatal(err)
	}
	times := func() (list []string) {
		files, err := filepath.Glob(filepath.Join(dir, modules, "*.so"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range append(files, filepath.Join(dir, driverLibrary), filepath.Join(dir, cublasLibrary)) {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprint(f, info.ModTime()))
		}
		return list
	}
	before := times()
	if err := Build(dir, string(text)); err != nil {
		t.Fatal(err)
	}
	if after := times(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a second build built %v of %v", after, before)
	}
	if err := Build(dir, string(text)+"\n"); err != nil {
		t.Fatal(err)
	}
	if after := times(); len(after) != len(before)+1 {
		t.Errorf("a build with other PTX built %v of %v", after, before)
	}
}

// TestFileWithUnknownInstruction checks that the error for a file with an unknown instruction names the file.
func TestFileWithUnknownInstruction(t *testing.T) {
	if _, err := findCompiler(); err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "odd.ptx")
	if err := os.WriteFile(file, []byte(small("brev.b32 	%r1, %r2;")), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := BuildFiles(t.TempDir(), file); err == nil || !strings.Contains(err.Error(), "odd.ptx: small, line ") {
		t.Errorf("BuildFiles returns %v", err)
	}
}

func TestWithoutCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CXX", "")
	if err := Build(t.TempDir(), ""); !errors.Is(err, ErrNoCompiler) {
		t.Errorf("Build returns %v", err)
	}
}
