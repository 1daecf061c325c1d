// Package readback runs other software to read the files that this module has written, so that tests can check them:
// Python with modules such as h5py, or Node.js with packages such as hyparquet. It skips a test if the software is not
// installed.
package readback

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// NodeFolder is the name of an environment variable. Its value is the folder in which npm has installed packages, in
// the subfolder node_modules.
const NodeFolder = "READBACK_NODE"

var (
	mu    sync.Mutex
	found = map[string]string{} // by modules: command of a Python that can import all of them; "" if there is none
)

// Python runs a script with the arguments and returns its output. modules lists Python modules, separated by commas.
// The script finds the arguments in sys.argv[1:]. The test is skipped if neither the python3 on PATH nor
// /usr/bin/python3 can import all of the modules.
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
// process.argv.slice(2). The test is skipped if one of the packages is not installed in the folder that the environment
// variable READBACK_NODE names.
func Node(t testing.TB, packages []string, script string, args ...string) string {
	t.Helper()
	dir := os.Getenv(NodeFolder)
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", p)); dir == "" || err != nil {
			t.Skipf("no package %s in the folder %q of %s: not read back by it", p, dir, NodeFolder)
		}
	}
	// Node.js looks for packages in the node_modules beside the script, so the script is written into dir.
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
