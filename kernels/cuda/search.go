package cuda

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Attempt is one place where a library was looked for.
type Attempt struct {
	Path string // a file, or a name that the loader looks up
	Err  error  // nil where it was found
}

// String gives the path and what came of it.
func (a Attempt) String() string {
	switch {
	case a.Err == nil:
		return a.Path + ": found"
	case a.missing():
		return a.Path + ": not there"
	}
	// The loader repeats the path in front of its reason.
	return a.Path + ": " + strings.TrimPrefix(strings.TrimSpace(a.Err.Error()), a.Path+": ")
}

// missing reports whether there is no such library, whatever the loader calls
// that.
func (a Attempt) missing() bool {
	return errors.Is(a.Err, fs.ErrNotExist) || a.Err != nil && strings.Contains(a.Err.Error(), "No such file or directory")
}

// describe joins attempts into one line.
func describe(attempts []Attempt) string {
	var list []string
	for _, a := range attempts {
		list = append(list, a.String())
	}
	return strings.Join(list, "; ")
}

// driverPaths are the names under which the loader knows the driver, the
// second for containers that bring only the link, and where containers, WSL
// and NixOS keep it when the loader has not been told.
func (p places) driverPaths() []string {
	paths := []string{"libcuda.so.1", "libcuda.so"}
	for _, folder := range []string{"usr/local/nvidia/lib64", "usr/lib/wsl/lib", "run/opengl-driver/lib"} {
		paths = append(paths, filepath.Join(p.root, folder, "libcuda.so.1"))
	}
	return paths
}

// cublasVariable names the environment variable that comes before every other
// place: a libcublasLt file or a folder that holds one, or "none".
const cublasVariable = "EMBED_CUBLAS"

// places is what a search for cuBLAS looks at, so that a test can lead it
// elsewhere.
type places struct {
	root   string // "/" on a real machine
	getenv func(string) string
	open   func(path string) (uintptr, error)
}

func realPlaces() places { return places{root: "/", getenv: os.Getenv, open: openLibrary} }

// openFirst opens the first of the paths that can be opened; the attempts end
// with it.
func (p places) openFirst(paths []string) (uintptr, []Attempt) {
	var attempts []Attempt
	for _, path := range paths {
		if filepath.IsAbs(path) {
			if _, err := os.Stat(path); err != nil {
				attempts = append(attempts, Attempt{path, fs.ErrNotExist})
				continue
			}
		}
		library, err := p.open(path)
		attempts = append(attempts, Attempt{path, err})
		if err == nil {
			return library, attempts
		}
	}
	return 0, attempts
}

// cublasPaths lists where libcublasLt may be, first choice first. cudaMajor is
// the driver's CUDA version: a library of a later major does not run on it,
// and the latest that does comes first.
func (p places) cublasPaths(cudaMajor int) []string {
	var names []string
	for major := 13; major >= 12; major-- {
		if major <= cudaMajor {
			names = append(names, fmt.Sprintf("libcublasLt.so.%d", major))
		}
	}
	var paths []string
	add := func(list ...string) {
		for _, path := range list {
			if !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	in := func(folder string) {
		for _, name := range names {
			add(filepath.Join(folder, name))
		}
	}
	// A pattern that matches nothing stays in the list as it is, so that the
	// error can show it.
	matching := func(pattern string) {
		folders, err := filepath.Glob(pattern)
		if err != nil || len(folders) == 0 {
			in(pattern)
			return
		}
		for i := len(folders) - 1; i >= 0; i-- { // the later version first
			in(folders[i])
		}
	}

	if given := p.getenv(cublasVariable); given != "" {
		if info, err := os.Stat(given); err == nil && info.IsDir() {
			in(given)
		} else if absolute, err := filepath.Abs(given); err == nil {
			add(absolute)
		}
	}
	add(names...)
	matching(filepath.Join(p.root, "usr/local/cuda*", "lib64"))
	for _, packages := range p.sitePackages() {
		matching(filepath.Join(packages, "nvidia/cublas/lib"))
		matching(filepath.Join(packages, "nvidia/cu1[2-9]/lib"))
	}
	for _, variable := range []string{"CONDA_PREFIX", "VIRTUAL_ENV"} {
		if prefix := p.getenv(variable); prefix != "" {
			in(filepath.Join(prefix, "lib"))
		}
	}
	for _, prefix := range p.pythonPrefixes() {
		in(filepath.Join(prefix, "lib"))
	}
	return paths
}

// pythonPrefixes are the folders above the bin of the python3 that PATH leads
// to: first the one of the link, which is where a virtual environment has its
// packages, then the one of the file that the link stands for, which is where
// the interpreter was installed.
func (p places) pythonPrefixes() []string {
	for _, folder := range filepath.SplitList(p.getenv("PATH")) {
		python := filepath.Join(folder, "python3")
		info, err := os.Stat(python)
		if !filepath.IsAbs(folder) || err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		prefixes := []string{filepath.Dir(filepath.Dir(python))}
		if file, err := filepath.EvalSymlinks(python); err == nil {
			prefixes = append(prefixes, filepath.Dir(filepath.Dir(file)))
		}
		return slices.Compact(prefixes)
	}
	return nil
}

// sitePackages lists patterns of the folders in which pip and conda install
// Python packages: of the environment that is active, then of the python3 on
// PATH, which serves without being activated, then of the user, then of the
// system.
func (p places) sitePackages() []string {
	const python = "lib/python3*"
	var list []string
	for _, variable := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if prefix := p.getenv(variable); prefix != "" {
			list = append(list, filepath.Join(prefix, python, "site-packages"))
		}
	}
	for _, prefix := range p.pythonPrefixes() {
		list = append(list, filepath.Join(prefix, python, "site-packages"))
	}
	if home := p.getenv("HOME"); home != "" {
		list = append(list, filepath.Join(home, ".local", python, "site-packages"))
	}
	for _, prefix := range []string{"usr/local", "usr", "opt/conda"} {
		list = append(list,
			filepath.Join(p.root, prefix, python, "site-packages"),
			filepath.Join(p.root, prefix, python, "dist-packages"))
	}
	return list
}

// findDriver loads libcuda.
func (p places) findDriver() (*driver, []Attempt, error) {
	library, attempts := p.openFirst(p.driverPaths())
	if library == 0 {
		if !supported {
			return nil, attempts, unavailablef(nil, "%v", errNoBuild())
		}
		// That a library is not there says nothing; what else is wrong does.
		broken := slices.DeleteFunc(slices.Clone(attempts), Attempt.missing)
		if len(broken) == 0 {
			return nil, attempts, unavailablef(nil, "no NVIDIA driver: libcuda.so.1 was not found")
		}
		return nil, attempts, unavailablef(nil, "no NVIDIA driver: %s", describe(broken))
	}
	if path := attempts[len(attempts)-1].Path; filepath.IsAbs(path) {
		// The driver asks the loader for its compiler of PTX by name. Where the
		// loader does not know the folder of the driver it does not know the
		// compiler either, unless that is loaded already. Some drivers bring none.
		_, _ = p.open(filepath.Join(filepath.Dir(path), "libnvidia-ptxjitcompiler.so.1"))
	}
	d := new(driver)
	if err := bindDriver(library, d); err != nil {
		return nil, attempts, unavailablef(err, "the NVIDIA driver is too old: libcuda lacks a function")
	}
	return d, attempts, nil
}

// errNoBuild is what a build for another system than Linux says.
func errNoBuild() error {
	return fmt.Errorf("this build, for %s on %s, has no CUDA", runtime.GOOS, runtime.GOARCH)
}

// errNoCublas is why the package's own products serve.
var errNoCublas = errors.New("no cuBLAS")

// ErrCublasOff is in the chain of Backend.Cublas's error when the user does
// not want cuBLAS.
var ErrCublasOff = errors.New(cublasVariable + "=none")

// findCublas loads libcublasLt for a driver of that CUDA major. An error is
// errNoCublas and lists every path that was tried.
func (p places) findCublas(cudaMajor int) (*cublasLt, []Attempt, error) {
	if p.getenv(cublasVariable) == "none" {
		return nil, nil, fmt.Errorf("%w: %w", errNoCublas, ErrCublasOff)
	}
	library, attempts := p.openFirst(p.cublasPaths(cudaMajor))
	if library == 0 {
		return nil, attempts, fmt.Errorf("%w: %s", errNoCublas, describe(attempts))
	}
	c := new(cublasLt)
	if err := bindCublas(library, c); err != nil {
		attempts[len(attempts)-1].Err = err
		return nil, attempts, fmt.Errorf("%w: %s", errNoCublas, describe(attempts))
	}
	return c, attempts, nil
}
