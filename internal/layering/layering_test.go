// Package layering contains tests that restrict imports and the size of functions, types and comments.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed maps a package of this module (the key) to the packages of this module that it may import. A key also applies
// to packages in folders below it. A listed package permits the packages in folders below it, too, except backends,
// each of which must be listed by name. A package to which no key applies may import no package of this module. The
// packages in binding have rules of their own.
var allowed = map[string][]string{
	"kernels/ref":         {"kernels"},
	"kernels/kernelstest": {"kernels", "kernels/ref"},
	"kernels/cpu":         {"kernels", half},
	"kernels/cuda":        {"kernels", half, "kernels/cuda/gpu", "kernels/cuda/driver"},
	"kernels/cuda/gpu":    {"kernels/cuda/driver"},
	"kernels/cuda/driver": {},
	"weights":             {half, "weights/hub", cancel},
	"internal/store":      {"internal/flock", "internal/hdf5", half, cancel},
	"internal/monitor":    {"internal/digits", "kernels/cuda/driver"},
	"internal/htmlreport": {"internal/digits"},
	"weights/hub":         {"internal/flock", cancel},
	// transformer uses only the type Alphabet of internal/seqio, and its values.
	"transformer": {"kernels", "weights", "weights/hub", "tokenizer", "internal/seqio"},
	"pool":        {"transformer", "tokenizer", "internal/seqio", "internal/store", "kernels", "weights"},
	"cmd/embed":   {"pool", "transformer", "tokenizer", "internal", "kernels", "weights", "kernels/cpu", "kernels/cuda"},
	"bench":       {"pool", "transformer", "tokenizer", "internal", "kernels", "weights", "kernels/cpu", "kernels/cuda"},
}

// backends are the packages that implement kernels.Backend. The list must contain every package directly below kernels,
// except those in testOnly.
var backends = []string{"kernels/cpu", "kernels/cuda", "kernels/ref"}

// binding lists the packages below kernels/cuda that call CUDA. Entries of allowed for folders above do not apply to
// them: an import of or by such a package is permitted only if the importing package's own entry lists the imported
// package by name.
var binding = []string{"kernels/cuda/gpu", "kernels/cuda/driver"}

// testOnly lists the packages that only tests may import.
var testOnly = []string{"internal/readback", "kernels/kernelstest", "transformer/goldentest", "weights/hub/hubtest"}

// software is the package of the software GPU, a program that emulates a GPU on the CPU. It may import no package of
// this module. Only tests and the command softgpu/build may import it.
const software = "kernels/cuda/softgpu"

// half is the package that converts 16-bit floating-point values. Backends, checkpoints and outputs share it, so that
// they all round in the same way.
const half = "internal/half"

// cancel is the package for readers that return an error when a context ends, for example while a file is hashed.
const cancel = "internal/cancel"

const module = "seqembed/"

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "seqembed/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []string
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		packages = append(packages, name)
		for _, i := range p.Imports {
			if i == "net/http" && name != "weights/hub" && name != "weights/hub/hubtest" {
				t.Errorf("%s must not import net/http: only weights/hub uses the network", name)
			}
			target, ours := strings.CutPrefix(i, module)
			if ours && !mayImport(name, target) {
				t.Errorf("%s must not import %s", name, target)
			}
		}
	}
	for name, targets := range allowed {
		for _, listed := range append(targets, name) {
			if !slices.ContainsFunc(packages, func(p string) bool { return within(p, listed) }) {
				t.Errorf("allowed[%q]: there is no package %s", name, listed)
			}
		}
	}
	for _, name := range packages {
		below, ok := strings.CutPrefix(name, "kernels/")
		if ok && !strings.Contains(below, "/") && !slices.Contains(backends, name) && !slices.Contains(testOnly, name) {
			t.Errorf("%s must be in backends or in testOnly", name)
		}
	}
}

// within reports whether the package name is parent or is in a folder below parent.
func within(name, parent string) bool { return name == parent || strings.HasPrefix(name, parent+"/") }

func mayImport(name, target string) bool {
	if slices.Contains(testOnly, target) {
		return false // imports by tests are not checked: the field Imports of go list omits them
	}
	if target == software || name == software {
		return target == software && name == software+"/build"
	}
	if slices.Contains(binding, target) || slices.Contains(binding, name) {
		return slices.Contains(allowed[name], target)
	}
	top := "" // the longest key of allowed that is name or a folder above name, or empty
	for key := range allowed {
		if within(name, key) && len(key) > len(top) {
			top = key
		}
	}
	if target == top {
		return true
	}
	if slices.Contains(backends, target) {
		return slices.Contains(allowed[top], target)
	}
	return slices.ContainsFunc(allowed[top], func(parent string) bool { return within(target, parent) })
}
