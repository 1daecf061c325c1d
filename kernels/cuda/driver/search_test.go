package driver

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree is a root folder with the given files, and a loader. The loader opens nothing, and records the names that it is
// asked for.
type tree struct {
	Places
	asked       []string
	environment map[string]string
}

func newTree(t *testing.T, files ...string) *tree {
	t.Helper()
	tr := &tree{environment: map[string]string{}}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tr.Root = root
	tr.Getenv = func(name string) string { return tr.environment[name] }
	tr.Open = func(path string) (uintptr, error) {
		tr.asked = append(tr.asked, path)
		return 0, errors.New("not a library")
	}
	for _, f := range files {
		path := filepath.Join(tr.Root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// TestCublasIsSearchedInOrder checks the order in which places are searched for libcublasLt, with a library in each
// folder. The error must name every place. For a driver of CUDA 12, libraries of CUDA 13 must be left out.
func TestCublasIsSearchedInOrder(t *testing.T) {
	const cu12, cu13 = "nvidia/cublas/lib/libcublasLt.so.12", "nvidia/cu13/lib/libcublasLt.so.13"
	want := []string{
		"own/libcublasLt.so.12",
		"libcublasLt.so.13", "libcublasLt.so.12",
		"usr/local/cuda-13.1/lib64/libcublasLt.so.13", "usr/local/cuda-12.4/lib64/libcublasLt.so.12",
		"venv/lib/python3.12/site-packages/" + cu12, "venv/lib/python3.12/site-packages/" + cu13,
		"conda/lib/python3.11/site-packages/" + cu13,
		"python/lib/python3.13/site-packages/" + cu13,
		"home/.local/lib/python3.12/site-packages/" + cu12,
		"usr/local/lib/python3.12/dist-packages/" + cu12,
		"usr/lib/python3.12/site-packages/" + cu12,
		"conda/lib/libcublasLt.so.12",
		"python/lib/libcublasLt.so.12",
	}
	files := slices.DeleteFunc(slices.Clone(want), func(f string) bool { return !strings.Contains(f, "/") })
	tr := newTree(t, append(files, "usr/local/cuda-11.8/lib64/libcublasLt.so.11")...)
	if err := errors.Join(os.Mkdir(filepath.Join(tr.Root, "python/bin"), 0o755),
		os.WriteFile(filepath.Join(tr.Root, "python/bin/python3"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	for variable, folder := range map[string]string{"VIRTUAL_ENV": "venv", "CONDA_PREFIX": "conda",
		"PATH": "python/bin", "HOME": "home"} {
		tr.environment[variable] = filepath.Join(tr.Root, folder)
	}
	_, attempts, err := tr.FindCublasLt(filepath.Join(tr.Root, "own"), 13)
	for i, path := range want {
		if strings.Contains(path, "/") {
			want[i] = filepath.Join(tr.Root, path)
		}
	}
	if !slices.Equal(tr.asked, want) {
		t.Errorf("the loader is asked for\n%s\nand not\n%s", strings.Join(tr.asked, "\n"), strings.Join(want, "\n"))
	}
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
	for _, a := range attempts {
		if err == nil || !strings.Contains(err.Error(), a.Path) {
			t.Errorf("%s is not in the error", a.Path)
		}
	}
	tr.asked = nil
	tr.FindCublasLt("", 12)
	for _, path := range tr.asked {
		if strings.HasSuffix(path, ".13") {
			t.Errorf("a driver of CUDA 12 is offered %s", path)
		}
	}
}

// TestCublasBesidePython checks that libcublasLt is found in the Python environment of the first python3 on PATH, even
// if that environment is not active. If this python3 is a symbolic link, the installation to which it points comes
// second.
func TestCublasBesidePython(t *testing.T) {
	const cu12 = "site-packages/nvidia/cublas/lib/libcublasLt.so.12"
	const cu13 = "site-packages/nvidia/cu13/lib/libcublasLt.so.13"
	for _, c := range []struct {
		name  string
		files []string
		links map[string]string // target of each link; a leading slash means the test's root folder
		path  string
		want  []string // expected paths, after the two bare names of the library
	}{
		{
			name:  "virtual environment",
			files: []string{"usr/bin/python3.12", "venv/lib/python3.12/" + cu13, "home/.local/lib/python3.12/" + cu12},
			links: map[string]string{"usr/bin/python3": "python3.12", "venv/bin/python3": "/usr/bin/python3"},
			path:  "absent:relative/bin::venv/bin:usr/bin",
			want:  []string{"venv/lib/python3.12/" + cu13, "home/.local/lib/python3.12/" + cu12},
		}, {
			name: "pyenv",
			files: []string{"pyenv/versions/3.11.9/bin/python3.11", "pyenv/versions/3.11.9/lib/python3.11/" + cu12,
				"tools/lib/python3.11/" + cu13},
			links: map[string]string{"pyenv/versions/3.11.9/bin/python3": "python3.11",
				"tools/bin/python3": "/pyenv/versions/3.11.9/bin/python3"},
			path: "tools/bin",
			want: []string{"tools/lib/python3.11/" + cu13, "pyenv/versions/3.11.9/lib/python3.11/" + cu12},
		}, {
			name:  "conda",
			files: []string{"conda/bin/python3.10", "conda/lib/libcublasLt.so.12", "conda/lib/python3.10/" + cu12},
			links: map[string]string{"conda/bin/python3": "python3.10"},
			path:  "conda/bin",
			want:  []string{"conda/lib/python3.10/" + cu12, "conda/lib/libcublasLt.so.12"},
		}, {
			name: "the first on PATH that can be run",
			files: []string{"data/python3", "b/bin/python3.9", "b/lib/python3.9/" + cu12,
				"c/bin/python3.9", "c/lib/python3.9/" + cu12},
			links: map[string]string{"b/bin/python3": "python3.9", "c/bin/python3": "python3.9"},
			path:  "data:b/bin:c/bin",
			want:  []string{"b/lib/python3.9/" + cu12},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(t, c.files...)
			for _, f := range c.files {
				if strings.Contains(f, "/bin/") {
					if err := os.Chmod(filepath.Join(tr.Root, f), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			for name, target := range c.links {
				if strings.HasPrefix(target, "/") {
					target = filepath.Join(tr.Root, target)
				}
				link := filepath.Join(tr.Root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(target, link)); err != nil {
					t.Fatal(err)
				}
			}
			var folders []string
			for _, folder := range filepath.SplitList(c.path) {
				if folder != "" && folder != "relative/bin" {
					folder = filepath.Join(tr.Root, folder)
				}
				folders = append(folders, folder)
			}
			tr.environment["PATH"] = strings.Join(folders, string(filepath.ListSeparator))
			tr.environment["HOME"] = filepath.Join(tr.Root, "home")
			_, attempts, err := tr.FindCublasLt("", 13)
			want := []string{"libcublasLt.so.13", "libcublasLt.so.12"}
			for _, path := range c.want {
				want = append(want, filepath.Join(tr.Root, path))
			}
			if err == nil || !slices.Equal(tr.asked, want) {
				t.Errorf("the loader is asked for\n%s\nand not\n%s: %v",
					strings.Join(tr.asked, "\n"), strings.Join(want, "\n"), err)
			}
			for i, a := range attempts {
				if slices.ContainsFunc(attempts[:i], func(b Attempt) bool { return a.Path == b.Path }) {
					t.Errorf("%s is tried twice", a.Path)
				}
			}
		})
	}
}

func TestCublasOfTheUser(t *testing.T) {
	tr := newTree(t, "some/where/lt.so")
	given := filepath.Join(tr.Root, "some/where/lt.so")
	tr.FindCublasLt(given, 12)
	if len(tr.asked) == 0 || tr.asked[0] != given {
		t.Errorf("the loader is asked for %v", tr.asked)
	}
}

func TestNoDriverIsASentence(t *testing.T) {
	tr := newTree(t)
	_, attempts, err := tr.FindCUDA()
	if !errors.Is(err, ErrUnavailable) || len(attempts) != 5 || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "libcuda.so.1: not a library") {
		t.Errorf("%v after %v", err, attempts)
	}
	tr = newTree(t, "usr/lib/wsl/lib/libcuda.so.1")
	tr.FindCUDA()
	if want := []string{"libcuda.so.1", "libcuda.so", filepath.Join(tr.Root, "usr/lib/wsl/lib/libcuda.so.1")}; !slices.Equal(tr.asked, want) {
		t.Errorf("the loader is asked for %v, want %v", tr.asked, want)
	}
	tr.Open = func(path string) (uintptr, error) {
		return 0, errors.New(path + ": cannot open shared object file: No such file or directory")
	}
	if _, _, err := tr.FindCUDA(); err == nil || err.Error() != "no NVIDIA driver: libcuda.so.1 was not found" {
		t.Errorf("nothing to open: %v", err)
	}
	tr.Open = func(string) (uintptr, error) {
		return 0, errors.New("libnvrm_gpu.so: cannot open shared object file: No such file or directory")
	}
	if _, _, err := tr.FindCUDA(); err == nil || !strings.Contains(err.Error(), "libnvrm_gpu.so") {
		t.Errorf("a library that the driver needs is missing: %v", err)
	}
}

func TestDriverTooOldForCublas(t *testing.T) {
	tr := newTree(t)
	if _, searched, err := tr.FindCublasLt("", 11); err == nil || len(searched) > 0 || !strings.Contains(err.Error(), "CUDA 11") {
		t.Errorf("error %v after %v", err, searched)
	}
}
