package driver

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

// String gives the path and the outcome.
func (a Attempt) String() string {
	switch {
	case a.Err == nil:
		return a.Path + ": found"
	case a.Missing():
		return a.Path + ": not there"
	}
	// The loader repeats the path in front of its reason.
	return a.Path + ": " + strings.TrimPrefix(strings.TrimSpace(a.Err.Error()), a.Path+": ")
}

// Missing reports whether there is no such library, whatever the loader calls that.
func (a Attempt) Missing() bool {
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

// driverPaths are the names under which the loader knows the driver, the second for containers that bring only the
// link, and where containers, WSL and NixOS keep it when the loader has not been told.
func (p Places) driverPaths() []string {
	paths := []string{"libcuda.so.1", "libcuda.so"}
	for _, folder := range []string{"usr/local/nvidia/lib64", "usr/lib/wsl/lib", "run/opengl-driver/lib"} {
		paths = append(paths, filepath.Join(p.Root, folder, "libcuda.so.1"))
	}
	return paths
}

// Places is where libraries are looked for, so that a test can lead a search elsewhere.
type Places struct {
	Root   string // "/" on a real machine
	Getenv func(string) string
	Open   func(path string) (uintptr, error)
}

// System is the machine that the program runs on.
func System() Places { return Places{Root: "/", Getenv: os.Getenv, Open: OpenLibrary} }

// openFirst opens the first of the paths that can be opened; the attempts end with it.
func (p Places) openFirst(paths []string) (uintptr, []Attempt) {
	var attempts []Attempt
	for _, path := range paths {
		if filepath.IsAbs(path) {
			if _, err := os.Stat(path); err != nil {
				attempts = append(attempts, Attempt{path, fs.ErrNotExist})
				continue
			}
		}
		library, err := p.Open(path)
		attempts = append(attempts, Attempt{path, err})
		if err == nil {
			return library, attempts
		}
	}
	return 0, attempts
}

// cublasPaths lists where libcublasLt may be: first the file or folder that is given, unless that is empty. cudaMajor
// is the driver's CUDA version: a library of a later major does not run on it, and the latest that does comes first.
func (p Places) cublasPaths(given string, cudaMajor int) []string {
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
	// A pattern that matches nothing stays in the list as it is, so that the error can show it.
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

	if given != "" {
		if info, err := os.Stat(given); err == nil && info.IsDir() {
			in(given)
		} else if absolute, err := filepath.Abs(given); err == nil {
			add(absolute)
		}
	}
	add(names...)
	matching(filepath.Join(p.Root, "usr/local/cuda*", "lib64"))
	for _, packages := range p.sitePackages() {
		matching(filepath.Join(packages, "nvidia/cublas/lib"))
		matching(filepath.Join(packages, "nvidia/cu1[2-9]/lib"))
	}
	for _, variable := range []string{"CONDA_PREFIX", "VIRTUAL_ENV"} {
		if prefix := p.Getenv(variable); prefix != "" {
			in(filepath.Join(prefix, "lib"))
		}
	}
	for _, prefix := range p.pythonPrefixes() {
		in(filepath.Join(prefix, "lib"))
	}
	return paths
}

// pythonPrefixes are the folders above the bin of the python3 that PATH leads to: first the one of the link, which is
// where a virtual environment has its packages, then the one of the file that the link stands for, which is where the
// interpreter was installed.
func (p Places) pythonPrefixes() []string {
	for _, folder := range filepath.SplitList(p.Getenv("PATH")) {
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

// sitePackages lists patterns of the folders in which pip and conda install Python packages: of the environment that is
// active, then of the python3 on PATH, which serves without being activated, then of the user, then of the system.
func (p Places) sitePackages() []string {
	const python = "lib/python3*"
	var list []string
	for _, variable := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if prefix := p.Getenv(variable); prefix != "" {
			list = append(list, filepath.Join(prefix, python, "site-packages"))
		}
	}
	for _, prefix := range p.pythonPrefixes() {
		list = append(list, filepath.Join(prefix, python, "site-packages"))
	}
	if home := p.Getenv("HOME"); home != "" {
		list = append(list, filepath.Join(home, ".local", python, "site-packages"))
	}
	for _, prefix := range []string{"usr/local", "usr", "opt/conda"} {
		list = append(list,
			filepath.Join(p.Root, prefix, python, "site-packages"),
			filepath.Join(p.Root, prefix, python, "dist-packages"))
	}
	return list
}

// FindCUDA loads libcuda. The attempts end with the place where it was found; an error is ErrUnavailable.
func (p Places) FindCUDA() (*CUDA, []Attempt, error) {
	library, attempts := p.openFirst(p.driverPaths())
	if library == 0 {
		if !supported {
			return nil, attempts, Unavailable(nil, "%v", errNoBuild())
		}
		// That a library is not there says nothing; any other fault does.
		broken := slices.DeleteFunc(slices.Clone(attempts), Attempt.Missing)
		if len(broken) == 0 {
			return nil, attempts, Unavailable(nil, "no NVIDIA driver: libcuda.so.1 was not found")
		}
		return nil, attempts, Unavailable(nil, "no NVIDIA driver: %s", describe(broken))
	}
	if path := attempts[len(attempts)-1].Path; filepath.IsAbs(path) {
		// The driver asks the loader for its compiler of PTX by name. Where the loader does not know the folder of the
		// driver it does not know the compiler either, unless that is loaded already. Some drivers bring none.
		_, _ = p.Open(filepath.Join(filepath.Dir(path), "libnvidia-ptxjitcompiler.so.1"))
	}
	d, err := BindCUDA(library)
	if err != nil {
		return nil, attempts, Unavailable(err, "the NVIDIA driver is too old: libcuda lacks a function")
	}
	return d, attempts, nil
}

// errNoBuild is the error of a build for another system than Linux.
func errNoBuild() error {
	return fmt.Errorf("this build, for %s on %s, has no CUDA", runtime.GOOS, runtime.GOARCH)
}

// FindCublasLt loads libcublasLt for a driver of that CUDA major. given is a file, or a folder that holds one, that
// comes before every other place, or empty. The error lists every path that was tried.
func (p Places) FindCublasLt(given string, cudaMajor int) (*CublasLt, []Attempt, error) {
	library, attempts := p.openFirst(p.cublasPaths(given, cudaMajor))
	if library == 0 {
		return nil, attempts, errors.New(describe(attempts))
	}
	c, err := BindCublasLt(library)
	if err != nil {
		attempts[len(attempts)-1].Err = err
		return nil, attempts, errors.New(describe(attempts))
	}
	return c, attempts, nil
}
