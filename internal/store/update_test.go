package store

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// Several processes write entries into one folder at the same time, and every
// entry is there in the end.
func TestUpdateManifestFromSeveralProcesses(t *testing.T) {
	const variable, processes, entries = "STORE_TEST_UPDATE", 4, 8
	if who := os.Getenv(variable); who != "" {
		for i := range entries {
			if err := UpdateManifest(os.Getenv(variable+"_DIR"), Entry{Input: Source{Path: fmt.Sprintf("%s-%d", who, i)}, Model: "m"}); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	dir := t.TempDir()
	var wait sync.WaitGroup
	for p := range processes {
		wait.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestUpdateManifestFromSeveralProcesses$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=p%d", variable, p), variable+"_DIR="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wait.Wait()
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.Entries()); n != processes*entries {
		t.Errorf("%d entries of %d are left", n, processes*entries)
	}
}
