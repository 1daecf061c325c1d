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

// Attempt is a place where a library was searched for.
type Attempt struct {
	Path string // a file, or a name that the loader searches for
	Err  error  // nil if the library was found
}

// String returns the path and the outcome.
func (a Attempt) String() string {
	switch {
	case a.Err == nil:
		return a.Path + ": found"
	case a.Missing():
		return a.Path + ": not there"
	}
	// The loader's message may begin with the path, which would then appear twice.
	return a.Path + ": " + strings.TrimPrefix(strings.TrimSpace(a.Err.Error()), a.Path+": ")
}

// Missing reports whether the library does not exist at this place. It does not report that another library is missing,
// which this one needs: the loader's message then begins with the name of the other.
func (a Attempt) Missing() bool {
	return errors.Is(a.Err, fs.ErrNotExist) || a.Err != nil &&
		strings.HasPrefix(a.Err.Error(), a.Path+": ") && strings.Contains(a.Err.Error(), "No such file or directory")
}

// describe joins attempts into one line.
func describe(attempts []Attempt) string {
	var list []string
	for _, a := range attempts {
		list = append(list, a.String())
	}
	return strings.Join(list, "; ")
}

// driverPaths lists the places where a library of the driver, for example "libcuda", is searched for. The first two are
// names that the loader may know; in some containers it knows only the second. Then come the folders in which
// containers, WSL and NixOS keep the driver.
func (p Places) driverPaths(library string) []string {
	paths := []string{library + ".so.1", library + ".so"}
	for _, folder := range []string{"usr/local/nvidia/lib64", "usr/lib/wsl/lib", "run/opengl-driver/lib"} {
		paths = append(paths, filepath.Join(p.Root, folder, library+".so.1"))
	}
	return paths
}

// Places determines where libraries are searched for. Tests replace its fields.
type Places struct {
	Root   string // root of all absolute paths; "/" except in tests
	Getenv func(string) string
	Open   func(path string) (uintptr, error)
}

// System returns the places of this machine.
func System() Places { return Places{Root: "/", Getenv: os.Getenv, Open: OpenLibrary} }

// openFirst opens the first of the paths that can be opened. If it succeeds, the last attempt is the successful one.
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

// Oldest and newest major versions of libcublasLt that are searched for.
const oldestCublas, newestCublas = 12, 13

// cublasPaths lists the possible places of libcublasLt. The argument first is a file or a folder and comes first,
// unless it is empty. cudaMajor is the driver's major CUDA version. Libraries of a newer major version are left out,
// because they do not run on that driver. Among the libraries in a folder the newest comes first.
func (p Places) cublasPaths(first string, cudaMajor int) (paths []string) {
	var names []string
	for major := newestCublas; major >= oldestCublas; major-- {
		if major <= cudaMajor {
			names = append(names, fmt.Sprintf("libcublasLt.so.%d", major))
		}
	}
	// The function in adds the libraries in the folders that match a pattern. Of several folders, such as cuda-12.4 and
	// cuda-13.1, the last by name comes first. If no folder matches, it adds paths that contain the pattern itself, so
	// that the error shows the pattern.
	in := func(elements ...string) {
		pattern := filepath.Join(elements...)
		folders, _ := filepath.Glob(pattern)
		if len(folders) == 0 {
			folders = []string{pattern}
		}
		for _, folder := range slices.Backward(folders) {
			for _, name := range names {
				if path := filepath.Join(folder, name); !slices.Contains(paths, path) {
					paths = append(paths, path)
				}
			}
		}
	}
	if info, err := os.Stat(first); err == nil && info.IsDir() {
		in(first)
	} else if absolute, err := filepath.Abs(first); first != "" && err == nil {
		paths = append(paths, absolute)
	}
	paths = append(paths, names...)
	in(p.Root, "usr/local/cuda*/lib64")
	environments := p.environments()
	for _, prefix := range slices.Concat(environments, p.installations()) {
		for _, library := range []string{"nvidia/cublas/lib", "nvidia/cu1[2-9]/lib"} {
			in(prefix, "lib/python3*/*-packages", library) // site-packages, and dist-packages of Debian
		}
	}
	for _, prefix := range environments {
		in(prefix, "lib")
	}
	return paths
}

// environments lists the folders of Python environments: of the active virtual environment, of the active conda
// environment, and of the first python3 on PATH. That python3 may be a symbolic link and then has two folders: the
// folder above that of the link, where a virtual environment keeps its packages, and the folder above that of the
// linked file, where the interpreter is installed.
func (p Places) environments() (prefixes []string) {
	for _, variable := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if prefix := p.Getenv(variable); prefix != "" {
			prefixes = append(prefixes, prefix)
		}
	}
	for _, folder := range filepath.SplitList(p.Getenv("PATH")) {
		python := filepath.Join(folder, "python3")
		info, err := os.Stat(python)
		if !filepath.IsAbs(folder) || err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		prefixes = append(prefixes, filepath.Dir(folder))
		if file, err := filepath.EvalSymlinks(python); err == nil {
			prefixes = append(prefixes, filepath.Dir(filepath.Dir(file)))
		}
		break
	}
	return prefixes
}

// installations lists the folders in which Python may be installed: first that of the user, then those of the system.
func (p Places) installations() (prefixes []string) {
	if home := p.Getenv("HOME"); home != "" {
		prefixes = append(prefixes, filepath.Join(home, ".local"))
	}
	for _, prefix := range []string{"usr/local", "usr", "opt/conda"} {
		prefixes = append(prefixes, filepath.Join(p.Root, prefix))
	}
	return prefixes
}

// FindCUDA loads libcuda. If it succeeds, the last attempt is the successful one. The error wraps ErrUnavailable.
func (p Places) FindCUDA() (*CUDA, []Attempt, error) {
	library, attempts := p.openFirst(p.driverPaths("libcuda"))
	if library == 0 {
		if !supported {
			return nil, attempts, Unavailable("%w", errNoBuild())
		}
		// Only faults other than a missing file are worth reporting.
		broken := slices.DeleteFunc(slices.Clone(attempts), Attempt.Missing)
		if len(broken) == 0 {
			return nil, attempts, Unavailable("no NVIDIA driver: libcuda.so.1 was not found")
		}
		return nil, attempts, Unavailable("no NVIDIA driver: %s", describe(broken))
	}
	if path := attempts[len(attempts)-1].Path; filepath.IsAbs(path) {
		// The driver loads its PTX compiler by name, but the loader may not search the folder in which the driver was
		// found. So the compiler is loaded from that folder first. An error is ignored, because some drivers have no
		// such file.
		_, _ = p.Open(filepath.Join(filepath.Dir(path), "libnvidia-ptxjitcompiler.so.1"))
	}
	d, err := BindCUDA(library)
	if err != nil {
		return nil, attempts, Unavailable("the NVIDIA driver is too old: libcuda lacks a function: %w", err)
	}
	return d, attempts, nil
}

// errNoBuild returns the error of a build that cannot load libraries: for another system than Linux, or static.
func errNoBuild() error {
	if runtime.GOOS == "linux" {
		return errors.New("this build is static and has no CUDA; the other build for Linux, which needs glibc, has it")
	}
	return fmt.Errorf("this build, for %s on %s, has no CUDA", runtime.GOOS, runtime.GOARCH)
}

// FindCublasLt loads libcublasLt for a driver of the given major CUDA version. It tries the path first before all
// others: a libcublasLt file, or a folder that contains one, or empty. The error lists every path that was tried, or
// says that the driver is too old for any.
func (p Places) FindCublasLt(first string, cudaMajor int) (*CublasLt, []Attempt, error) {
	paths := p.cublasPaths(first, cudaMajor)
	if len(paths) == 0 {
		return nil, nil, fmt.Errorf("the driver supports CUDA %d, and libcublasLt needs a driver for CUDA %d", cudaMajor, oldestCublas)
	}
	library, attempts := p.openFirst(paths)
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
