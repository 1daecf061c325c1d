//go:build linux

package softgpu

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

//go:embed sim
var sim embed.FS

// Names of the two libraries, as programs load them.
const (
	driverLibrary = "libcuda.so.1"
	cublasLibrary = "libcublasLt.so.13"
)

// modules is the name of the folder with the translated kernels. It lies in the folder of the driver library.
const modules = "modules"

// Flags of the compiler. -ffp-contract=off keeps the bits of results: the PTX itself states which multiplications are
// fused with additions. Translated kernels run as fast with -Og as with -O2, and compile in a third of the time.
var (
	flags       = []string{"-std=c++17", "-march=native", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-w", "-pthread"}
	moduleFlags = []string{"-Og"}
	driverFlags = []string{"-O3"}
	cublasFlags = []string{"-O3"}
)

// Committed builds the software GPU with the committed PTX of the Go module that contains the working directory. It
// builds in the module's folder build/softgpu and returns that folder.
func Committed() (folder string, err error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return "", errors.New("the working directory is not in a Go module")
		}
		root = filepath.Dir(root)
	}
	files, err := filepath.Glob(filepath.Join(root, "kernels/cuda/ptx/*.ptx"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("no PTX in %s", filepath.Join(root, "kernels/cuda/ptx"))
	}
	folder = filepath.Join(root, "build/softgpu")
	return folder, BuildFiles(folder, files...)
}

// BuildFiles does the same as Build for PTX files. Its errors name the file.
func BuildFiles(folder string, files ...string) error {
	var texts []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		texts = append(texts, string(text))
	}
	return build(folder, texts, files)
}

// Build builds the libraries in a folder, and a module for each PTX text. It keeps modules of other texts, and does not
// rebuild files whose sources have not changed. Several processes may build in one folder at the same time.
func Build(folder string, ptx ...string) error { return build(folder, ptx, nil) }

// build does the same as Build. The argument names has a name for each text, which errors contain, or is nil.
func build(folder string, ptx, names []string) error {
	compiler, err := findCompiler()
	if err != nil {
		return err
	}
	b := &builder{compiler: compiler, folder: folder}
	if err := os.MkdirAll(filepath.Join(folder, modules), 0o777); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(folder, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.unpack(); err != nil {
		return err
	}
	defer os.RemoveAll(b.sources)
	jobs := []func() error{b.driver}
	for i, text := range ptx {
		code, err := translate(text)
		if err != nil && names != nil {
			err = fmt.Errorf("%s: %w", names[i], err)
		}
		if err != nil {
			return err
		}
		jobs = append(jobs, func() error { return b.module(text, code) })
	}
	if err := parallel(jobs); err != nil {
		return err
	}
	return b.cublas() // last, because this library is linked with the driver library
}

// BuildWithout copies the driver library from one folder to another and removes a function from the copy by changing
// its name.
func BuildWithout(from, to, symbol string) error {
	library, err := os.ReadFile(filepath.Join(from, driverLibrary))
	if err != nil {
		return err
	}
	name := []byte("\x00" + symbol + "\x00")
	if !bytes.Contains(library, name) {
		return fmt.Errorf("%s has no function %s", driverLibrary, symbol)
	}
	spoilt := bytes.Clone(name)
	spoilt[len(spoilt)-2] = '-'
	return os.WriteFile(filepath.Join(to, driverLibrary), bytes.ReplaceAll(library, name, spoilt), 0o666)
}

var driverSources = []string{"block.cpp", "device.cpp", "driver.cpp", "memory.cpp"}

// findCompiler returns the path of the compiler named by CXX, or of g++ or clang++.
func findCompiler() (string, error) {
	for _, name := range []string{os.Getenv("CXX"), "g++", "clang++"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: neither g++ nor clang++ is on PATH, and CXX names none", ErrNoCompiler)
}

// lock locks the file that every process locks before it builds in the folder. It waits while another process has
// locked the file. The function unlock releases the lock.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

type builder struct {
	compiler, folder string
	sources          string // temporary folder with the files of sim
	digest           []byte // digest of the sources, the compiler and the flags
}

// unpack writes the embedded sources to a temporary folder for the compiler, and sets b.digest.
func (b *builder) unpack() error {
	// The predefined macros identify the compiler, its version and the meaning of -march=native on this machine.
	macros, err := exec.Command(b.compiler, "-march=native", "-dM", "-E", "-x", "c++", os.DevNull).Output()
	if err != nil {
		return fmt.Errorf("%s -dM -E: %w", b.compiler, err)
	}
	if b.sources, err = os.MkdirTemp("", "softgpu"); err != nil {
		return err
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s %q %q %q %q", macros, flags, moduleFlags, driverFlags, cublasFlags)
	err = fs.WalkDir(sim, "sim", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := sim.ReadFile(path)
		if err != nil {
			return err
		}
		hash.Write(text)
		return os.WriteFile(filepath.Join(b.sources, d.Name()), text, 0o666)
	})
	b.digest = hash.Sum(nil)
	if err != nil {
		os.RemoveAll(b.sources)
	}
	return err
}

func (b *builder) driver() error {
	return b.buildOnce(driverLibrary, "", func() error { return b.link(driverLibrary, driverSources, driverFlags...) })
}

func (b *builder) cublas() error {
	return b.buildOnce(cublasLibrary, "", func() error {
		return b.link(cublasLibrary, []string{"cublaslt.cpp"}, append(cublasFlags, "-L"+b.folder, "-l:"+driverLibrary, "-Wl,-rpath,$ORIGIN")...)
	})
}

// module compiles code, the C++ translation of a PTX text, to a library. The name of the library is the hash of the
// PTX, so that the software driver can find the library.
func (b *builder) module(ptx, code string) error {
	hash := fnv.New64a()
	hash.Write([]byte(ptx))
	name := filepath.Join(modules, fmt.Sprintf("%016x", hash.Sum64()))
	return b.buildOnce(name+".so", code, func() error {
		source := filepath.Join(b.sources, filepath.Base(name)+".cpp")
		if err := os.WriteFile(source, []byte(code), 0o666); err != nil {
			return err
		}
		return b.link(name+".so", []string{filepath.Base(source)}, moduleFlags...)
	})
}

// buildOnce calls the function make to build a file, unless the file exists and was built from the same sources with
// the same compiler and flags. A file beside it, with the suffix .key, contains the digest of all these.
func (b *builder) buildOnce(name, code string, make func() error) error {
	path := filepath.Join(b.folder, name)
	key := sha256.Sum256(append(bytes.Clone(b.digest), code...))
	want := fmt.Sprintf("%x\n", key)
	if got, err := os.ReadFile(path + ".key"); err == nil && string(got) == want {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	if err := make(); err != nil {
		return err
	}
	return os.WriteFile(path+".key", []byte(want), 0o666)
}

// link compiles sources to a shared library. It builds the library under another name and then renames it, because a
// program may have loaded an older library of this name.
func (b *builder) link(name string, sources []string, more ...string) error {
	path := filepath.Join(b.folder, name)
	args := append(append([]string{}, flags...), "-shared", "-I"+b.sources, "-o", path+".new", "-Wl,-soname,"+filepath.Base(name), "-Wl,-Bsymbolic")
	for _, s := range sources {
		args = append(args, filepath.Join(b.sources, s))
	}
	var said bytes.Buffer
	command := exec.Command(b.compiler, append(args, more...)...)
	command.Stdout, command.Stderr = &said, &said
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s for %s: %w\n%s", b.compiler, name, err, said.Bytes())
	}
	return os.Rename(path+".new", path)
}

// parallel runs jobs on all cores and returns the first error.
func parallel(jobs []func() error) error {
	queue := make(chan func() error, len(jobs)) // large enough for all jobs, so that filling it does not block
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	failed := make(chan error, len(jobs))
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for j := range queue {
				if err := j(); err != nil {
					failed <- err
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return <-failed
}
