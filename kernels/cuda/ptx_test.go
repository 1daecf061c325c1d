package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The committed PTX was compiled from the sources beside it: no GPU and no
// compiler is needed to see when somebody forgot to run src/build.sh.
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

// What the driver is asked to load has the version and the entry points that
// MANIFEST promises, within the limits of every GPU since sm_80.
func TestPTXEntryPoints(t *testing.T) {
	m, err := readManifest()
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`\.visible \.entry (\w+)\(`)
	for _, mod := range m.Modules {
		text, err := mod.text()
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

func TestParseManifestRefuses(t *testing.T) {
	for _, text := range []string{
		"source alone",
		"ptx a.ptx 7.0",
		"kernel k sm_80 registers 1 shared 0 stack 0",
		"ptx a.ptx 7.0 00\nkernel k sm_80 registers many shared 0 stack 0",
		"ptx a.ptx 7.0 00\nkernel k sm_80 shared 0 registers 1 stack 0",
		"something else",
	} {
		if _, err := parseManifest(text); err == nil || !strings.Contains(err.Error(), "MANIFEST line") {
			t.Errorf("%q gives %v", text, err)
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
