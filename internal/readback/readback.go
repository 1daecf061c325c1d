// Package readback lets a test read the files that it has written with other software: Python with modules such as
// h5py, or Node.js with packages such as hyparquet. A test is skipped where the software is absent.
package readback

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// NodeFolder is the environment variable with the folder whose node_modules has the packages for Node.
const NodeFolder = "READBACK_NODE"

var (
	mu    sync.Mutex
	found = map[string]string{} // path of an interpreter that has the modules of the key; "" if there is none
)

// Python runs a script with the arguments and returns its output. The script finds the arguments in sys.argv[1:]. The
// test is skipped if no python3, on PATH or of the system, has all of the modules.
func Python(t testing.TB, modules, script string, args ...string) string {
	t.Helper()
	mu.Lock()
	python, tried := found[modules]
	if !tried {
		for _, p := range []string{"python3", "/usr/bin/python3"} {
			if exec.Command(p, "-c", "import "+modules).Run() == nil {
				python = p
				break
			}
		}
		found[modules] = python
	}
	mu.Unlock()
	if python == "" {
		t.Skipf("no python3 with the modules %s: not read back by them", modules)
	}
	return run(t, exec.Command(python, append([]string{"-c", script}, args...)...))
}

// Node runs a script, an ES module, with the arguments and returns its output. The script finds the arguments in
// process.argv.slice(2). The test is skipped if the folder of NodeFolder does not have all of the packages.
func Node(t testing.TB, packages []string, script string, args ...string) string {
	t.Helper()
	dir := os.Getenv(NodeFolder)
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", p)); dir == "" || err != nil {
			t.Skipf("no package %s in the folder %q of %s: not read back by it", p, dir, NodeFolder)
		}
	}
	// A module finds packages from its own place.
	f, err := os.CreateTemp(dir, "readback-*.mjs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if _, err := f.WriteString(script); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return run(t, exec.Command("node", append([]string{f.Name()}, args...)...))
}

func run(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	var out, said strings.Builder
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", c.Path, err, said.String())
	}
	return out.String()
}
