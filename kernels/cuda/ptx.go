package cuda

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// ptxFiles are the compiled kernels. src/build.sh writes them.
//
//go:embed ptx/MANIFEST ptx/*.ptx
var ptxFiles embed.FS

// A manifest is what ptx/MANIFEST says: from which sources, and how, the
// kernels were compiled.
type manifest struct {
	Compiler string            // versions of nvcc and ptxas
	Flags    string            // of nvcc
	Sources  map[string]string // file name in src to SHA-256 in hex
	Modules  []module          // in the order of their names
}

// A module is one PTX file.
type module struct {
	File    string // name in ptx
	Version string // the PTX ISA that it asks of the driver, for example "7.0"
	SHA256  string // in hex
	Kernels []kernelFigures
}

// kernelFigures is what ptxas says of one kernel on one architecture.
type kernelFigures struct {
	Name      string
	Target    string // for example "sm_80"
	Registers int    // a thread
	Shared    int    // bytes of static shared memory a block
	Stack     int    // bytes of local memory a thread
}

// text is the PTX of the module as the driver takes it: ended by a zero.
func (m module) text() ([]byte, error) {
	text, err := ptxFiles.ReadFile("ptx/" + m.File)
	if err != nil {
		return nil, fmt.Errorf("kernels of %s: %w", m.File, err)
	}
	return append(text, 0), nil
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
	text, err := fs.ReadFile(ptxFiles, "ptx/MANIFEST")
	if err != nil {
		return manifest{}, err
	}
	return parseManifest(string(text))
}

// parseManifest reads the lines that src/build.sh writes: a word that says
// what the line is about, then its fields. Figures follow their module.
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
