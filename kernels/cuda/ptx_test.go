package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// manifest is the content of ptx/MANIFEST: the sources of the kernels, and the compiler and flags with which they were
// compiled.
type manifest struct {
	Compiler string            // versions of nvcc and ptxas
	Flags    string            // flags of nvcc
	Sources  map[string]string // SHA-256 in hex of each file in the folder src, by file name
	Modules  []module          // sorted by name
}

// module is one PTX file.
type module struct {
	File    string // file name in the folder ptx
	Version string // the PTX ISA version that the driver must support, for example "7.0"
	SHA256  string // of the file, in hex
	Kernels []kernelFigures
}

// kernelFigures are the resources that ptxas reports for one kernel on one architecture.
type kernelFigures struct {
	Name      string
	Target    string // architecture, for example "sm_80"
	Registers int    // per thread
	Shared    int    // bytes of static shared memory per block
	Stack     int    // bytes of local memory per thread
}

// names lists the module's kernels, each once.
func (m module) names() []string {
	var list []string
	for _, k := range m.Kernels {
		list = append(list, k.Name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// readManifest parses ptx/MANIFEST.
func readManifest() (manifest, error) {
	text, err := ptxFiles.ReadFile("ptx/MANIFEST")
	if err != nil {
		return manifest{}, err
	}
	return parseManifest(string(text))
}

// parseManifest parses the lines that src/build.sh writes. Each line is a keyword and then fields. The lines of a
// module's kernels follow the line of the module.
func parseManifest(text string) (manifest, error) {
	m := manifest{Sources: map[string]string{}}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		fields := strings.Fields(rest)
		bad := func() (manifest, error) {
			return manifest{}, fmt.Errorf("ptx/MANIFEST line %d: %q is not understood", i+1, line)
		}
		switch {
		case kind == "#":
		case kind == "compiler":
			m.Compiler = rest
		case kind == "flags":
			m.Flags = rest
		case kind == "source" && len(fields) == 2:
			m.Sources[fields[0]] = fields[1]
		case kind == "ptx" && len(fields) == 3:
			m.Modules = append(m.Modules, module{File: fields[0], Version: fields[1], SHA256: fields[2]})
		case kind == "kernel" && len(fields) == 8 && len(m.Modules) > 0:
			k := kernelFigures{Name: fields[0], Target: fields[1]}
			for n, to := range []*int{&k.Registers, &k.Shared, &k.Stack} {
				value, err := strconv.Atoi(fields[3+2*n])
				if err != nil || fields[2+2*n] != []string{"registers", "shared", "stack"}[n] {
					return bad()
				}
				*to = value
			}
			last := &m.Modules[len(m.Modules)-1]
			last.Kernels = append(last.Kernels, k)
		default:
			return bad()
		}
	}
	return m, nil
}

// TestPTXIsOfTheseSources checks that the sources of the kernels and the committed PTX have the hashes in ptx/MANIFEST,
// which src/build.sh writes when it compiles them. It needs no GPU and no compiler.
func TestPTXIsOfTheseSources(t *testing.T) {
	m, err := readManifest()
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	for _, pattern := range []string{"src/*.cu", "src/*.cuh"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, files...)
	}
	if len(sources) == 0 {
		t.Fatal("no sources in src")
	}
	for _, file := range sources {
		name := filepath.Base(file)
		if got, want := hashOf(t, file), m.Sources[name]; got != want {
			t.Errorf("src/%s has changed since the PTX was compiled (hash %s, MANIFEST says %q): run src/build.sh", name, got, want)
		}
	}
	if len(m.Sources) != len(sources) {
		t.Errorf("MANIFEST names %d sources, src has %d", len(m.Sources), len(sources))
	}

	files, err := filepath.Glob("ptx/*.ptx")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(m.Modules) {
		t.Errorf("MANIFEST names %d PTX files, ptx has %d", len(m.Modules), len(files))
	}
	for _, mod := range m.Modules {
		if got := hashOf(t, filepath.Join("ptx", mod.File)); got != mod.SHA256 {
			t.Errorf("ptx/%s is not the file that MANIFEST describes", mod.File)
		}
	}
}

// TestPTXEntryPoints compares the version and the entry points of the PTX with MANIFEST, and the resources in MANIFEST
// with the limits of every GPU since sm_80.
func TestPTXEntryPoints(t *testing.T) {
	m, err := readManifest()
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`\.visible \.entry (\w+)\(`)
	images, err := embeddedImages()
	if err != nil {
		t.Fatal(err)
	}
	for i, mod := range m.Modules {
		text, err := images[i].Text()
		if err != nil {
			t.Fatal(err)
		}
		if text[len(text)-1] != 0 {
			t.Errorf("%s does not end in a zero", mod.File)
		}
		var names []string
		for _, match := range entry.FindAllStringSubmatch(string(text), -1) {
			names = append(names, match[1])
		}
		slices.Sort(names)
		if !slices.Equal(names, mod.names()) {
			t.Errorf("%s has the kernels %v, MANIFEST names %v", mod.File, names, mod.names())
		}
		if !strings.Contains(string(text), ".version "+mod.Version+"\n") || !strings.Contains(string(text), ".target sm_80\n") {
			t.Errorf("%s is not of version %s for sm_80", mod.File, mod.Version)
		}
		for _, k := range mod.Kernels {
			if k.Registers > 255 || k.Shared > 48<<10 || k.Stack > 0 {
				t.Errorf("%s on %s: %d registers, %d bytes of static shared memory, %d of stack", k.Name, k.Target, k.Registers, k.Shared, k.Stack)
			}
		}
	}
}

func hashOf(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
