package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzSnapshot checks Snapshot for any id, any revision and any content of the file refs/main in the cache. A folder
// that Snapshot returns must be the snapshot of the commit that the revision or refs/main names.
func FuzzSnapshot(f *testing.F) {
	const commit = "1234567890abcdef1234567890abcdef12345678"
	for _, c := range [][3]string{
		{"facebook/esm2_t6_8M_UR50D", "", commit}, {"a/b", "main", commit + "\n"}, {"a/..", "", commit}, {"../../etc", "", "main"}, {"a/b", "", "../../../x"},
		{"a/b/c", "", ""}, {"a/b", commit, "none"}, {"A--B/c", "refs/pr/1", strings.Repeat("a", 100)}, {"", "", "\x00"}, {"a/b", "../main", commit},
		{"a/b", "v1.0", "ABCDEF7890abcdef1234567890abcdef12345678"}, {"a/b", "..", commit}, {"a/b", "x/../main", commit}, {"a/b", "/main", commit},
	} {
		f.Add(c[0], c[1], c[2])
	}
	cache := f.TempDir()
	f.Setenv("HF_HUB_CACHE", cache)
	f.Fuzz(func(t *testing.T, id, revision, ref string) {
		if !IsID(id) || len(id) > 200 {
			return
		}
		began := time.Now()
		model := modelFolder(cache, id)
		if filepath.Dir(model) != cache {
			t.Fatalf("%q is kept in %s", id, model)
		}
		defer os.RemoveAll(model)
		snapshot := filepath.Join(model, "snapshots", commit)
		for path, text := range map[string]string{filepath.Join(model, "refs", "main"): ref, filepath.Join(snapshot, "config.json"): "{}"} {
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Skip("no name of a folder")
			}
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		folder, err := Snapshot(id, revision)
		if named := revision == commit || strings.TrimSpace(ref) == commit; err == nil && (folder != snapshot || !named) {
			t.Errorf("%q, %q, %q: %s", id, revision, ref, folder)
		} else if err != nil && (revision == commit || revision == "" && ref == commit) {
			t.Errorf("%q, %q, %q: %v", id, revision, ref, err)
		}
		if of, found := Of(snapshot); found != commit || of != id {
			t.Errorf("%q: %s@%s", id, of, found)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%q takes %v", id, took)
		}
	})
}

// TestIDs checks which names IsID accepts as ids of models on the hub.
func TestIDs(t *testing.T) {
	for name, want := range map[string]bool{
		"a/b": true, "facebook/esm2_t6_8M_UR50D": true, "_a/b_": true, "a.b-c/d.e": true, "a/b/c": false, "a": false, "a/": false,
		"a-/b": false, "-a/b": false, "a/b.": false, "a/.b": false, "a--b/c": false, "a/b..c": false, "a/b\n": false,
	} {
		if IsID(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}
