package weights

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzHubID: whatever an id and the reference in the cache say, no folder outside the cache is taken for a model.
func FuzzHubID(f *testing.F) {
	const commit = "1234567890abcdef1234567890abcdef12345678"
	for _, c := range [][2]string{
		{"facebook/esm2_t6_8M_UR50D", commit}, {"a/b", commit + "\n"}, {"a/..", commit}, {"../../etc", "main"}, {"a/b", "../../../x"},
		{"a/b/c", ""}, {"a/b@" + commit, commit}, {"A--B/c", strings.Repeat("a", 100)}, {"", "\x00"}, {"a/b", "ABCDEF7890abcdef1234567890abcdef12345678"},
	} {
		f.Add(c[0], c[1])
	}
	cache := f.TempDir()
	f.Setenv("HF_HUB_CACHE", cache)
	f.Fuzz(func(t *testing.T, id, ref string) {
		began := time.Now()
		if !IsHubID(id) {
			return
		}
		model := filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
		if filepath.Dir(model) != cache {
			t.Fatalf("%q is kept in %s", id, model)
		}
		if len(id) > 200 || os.MkdirAll(filepath.Join(model, "refs"), 0o777) != nil {
			t.Skip("no name of a folder")
		}
		defer os.RemoveAll(model)
		if err := os.WriteFile(filepath.Join(model, "refs", "main"), []byte(ref), 0o666); err != nil {
			t.Fatal(err)
		}
		folder, err := CachedSnapshot(id)
		if err == nil {
			t.Errorf("%q, %q: %s is a model", id, ref, folder)
		}
		// With the snapshot there, it is found, or the reference is no commit.
		commit := strings.TrimSpace(ref)
		if commitPattern.MatchString(commit) {
			snapshot := filepath.Join(model, "snapshots", commit)
			if err := os.MkdirAll(snapshot, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(snapshot, "model.safetensors"), nil, 0o666); err != nil {
				t.Fatal(err)
			}
			if folder, err := CachedSnapshot(id); err != nil || folder != snapshot {
				t.Errorf("%q, %q: %s, %v", id, ref, folder, err)
			}
			if hub, revision := HubSnapshot(snapshot); revision != commit || hub != id && !strings.Contains(id, "--") {
				t.Errorf("%q, %q: %s@%s", id, ref, hub, revision)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%q takes %v", id, took)
		}
	})
}
