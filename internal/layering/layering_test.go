// Package layering holds the test that keeps imports pointing down.
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

// allowed lists for each package which packages of this module it may import,
// by prefix. A package that is not listed may import none.
var allowed = map[string][]string{
	"kernels/ref":         {"kernels"},
	"kernels/kernelstest": {"kernels"},
	"kernels/cpu":         {"kernels", half},
	"kernels/cuda":        {"kernels", half, "kernels/cuda/gpu", "kernels/cuda/driver"},
	"kernels/cuda/gpu":    {"kernels/cuda/driver"},
	"kernels/cuda/driver": {},
	"weights":             {half, "weights/hub"},
	"weights/hub":         {},
	"transformer":         {"kernels", "weights", "tokenizer", "internal/seqio"}, // of seqio only the name of an alphabet
	"pool":                {"transformer", "tokenizer", "internal/seqio", "internal/store", "internal/monitor", "kernels", "weights"},
	"cmd/embed":           {"pool", "transformer", "tokenizer", "internal", "kernels", "weights"},
	"bench":               {"pool", "transformer", "tokenizer", "internal", "kernels", "weights"},
}

// backends may be imported by cmd/embed and bench alone.
var backends = []string{"kernels/cpu", "kernels/cuda", "kernels/ref"}

// binding is what lies below the operations of kernels/cuda: one device, and C. Nobody else knows it, and it knows no
// kernels.
var binding = []string{"kernels/cuda/gpu", "kernels/cuda/driver"}

// testOnly may be imported by tests alone.
var testOnly = []string{"kernels/kernelstest", "transformer/goldentest"}

// software is the GPU without a GPU: it knows nothing of this module, and only tests and its own command know it.
const software = "kernels/cuda/softgpu"

// half is arithmetic on single values: backends and checkpoints round by the same rule without knowing of each other.
const half = "internal/half"

const module = "seqembed/"

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "seqembed/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; packages++ {
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
		for _, i := range p.Imports {
			if i == "net/http" && name != "weights/hub" {
				t.Errorf("%s must not import net/http: only weights/hub uses the network", name)
			}
			target, ours := strings.CutPrefix(i, module)
			if ours && !mayImport(name, target) {
				t.Errorf("%s must not import %s", name, target)
			}
		}
	}
	if packages < len(allowed)-3 {
		t.Errorf("only %d packages were looked at", packages)
	}
}

func mayImport(name, target string) bool {
	if slices.Contains(testOnly, target) {
		return false // imports of tests are not looked at
	}
	if target == software || name == software {
		return target == software && name == software+"/build"
	}
	if slices.Contains(binding, target) || slices.Contains(binding, name) {
		return slices.Contains(allowed[name], target)
	}
	top := name
	for key := range allowed {
		if strings.HasPrefix(name, key+"/") {
			top = key
		}
	}
	if slices.Contains(backends, target) && top != "cmd/embed" && top != "bench" && target != top &&
		!(top == "kernels/kernelstest" && target == "kernels/ref") {
		return false
	}
	return target == top || slices.ContainsFunc(allowed[top], func(prefix string) bool {
		return target == prefix || strings.HasPrefix(target, prefix+"/")
	})
}
