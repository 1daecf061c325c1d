package transformer_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seqembed/transformer"
	"seqembed/weights"
)

// cachedModel puts a file that looks like a checkpoint into the Hugging Face cache, as the snapshot of a model.
func cachedModel(t *testing.T, cache, id string) (snapshot string) {
	t.Helper()
	const commit = "0123456789abcdef0123456789abcdef01234567"
	model := filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
	touch(t, filepath.Join(model, "refs", "main"), commit+"\n")
	snapshot = filepath.Join(model, "snapshots", commit)
	touch(t, filepath.Join(snapshot, "model.safetensors"), "")
	return snapshot
}

func touch(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wantRef resolves a name.
func wantRef(t *testing.T, name string, want transformer.Ref) {
	t.Helper()
	if ref, err := transformer.Families.Resolve(name); err != nil || ref != want {
		t.Errorf("%s is %+v, %v; want %+v", name, ref, err, want)
	}
}

// wantRefused checks that a name is refused with all of the parts.
func wantRefused(t *testing.T, name string, parts ...string) {
	t.Helper()
	_, err := transformer.Families.Resolve(name)
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q gives %v, without %q", name, err, part)
		}
	}
}

func TestResolveFindsCachedModels(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("HF_HUB_CACHE", cache)
	for id, names := range map[string][]string{
		"facebook/esm2_t6_8M_UR50D":  {"esm2-8m", "esm2_t6_8M_UR50D"},
		"zhihan1996/DNABERT-2-117M":  {"dnabert-2"},
		"zhihan1996/DNABERT-S":       {"dnabert-s"},
		"some-org/My.Model":          {"My.Model"},
		"facebook/esm2_t33_650M_UR5": {"esm2_t33_650M_UR5"},
	} {
		want := transformer.Ref{Path: cachedModel(t, cache, id), Name: names[0]}
		wantRef(t, id, want)
		if strings.Contains(id, "UR50D") || strings.Contains(id, "DNABERT") {
			for _, name := range names {
				wantRef(t, name, want)
			}
		}
		// The snapshot named as a path, and the file in it, are known as the same model.
		wantRef(t, want.Path, want)
		want.Path = filepath.Join(want.Path, "model.safetensors")
		wantRef(t, want.Path, want)
	}
	wantRefused(t, "esm2-35m", "facebook/esm2_t12_35M_UR50D")
	if _, err := transformer.Families.Resolve("esm2-35m"); !errors.Is(err, weights.ErrNotCached) {
		t.Errorf("a model that is not cached gives %v", err)
	}
}

func TestResolveSyntheticModels(t *testing.T) {
	for name, want := range map[string]transformer.Ref{
		"synthetic:esm2-tiny":                     {Name: "esm2-tiny", Synthetic: "esm2-tiny"},
		"synthetic:dnabert-s-2l@7":                {Name: "dnabert-s-2l", Synthetic: "dnabert-s-2l", Seed: 7},
		"synthetic:dnabert-2":                     {Name: "dnabert-2", Synthetic: "dnabert-2"},
		"synthetic:esm2-15b@18446744073709551615": {Name: "esm2-15b", Synthetic: "esm2-15b", Seed: 1<<64 - 1},
	} {
		wantRef(t, name, want)
	}
	wantRefused(t, "synthetic:esm3", `"esm3"`, "dnabert-s,", "dnabert-2", "dnabert-s-2l", "esm2-8m", "esm2-15b", "esm2-tiny", "esm2-hd128")
	for _, seed := range []string{"", "-1", "x", "18446744073709551616", "1@2"} {
		wantRefused(t, "synthetic:esm2-8m@"+seed, "synthetic:esm2-8m@"+seed, "seed")
	}
}

func TestResolvePaths(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("HF_HUB_CACHE", cache)
	cached := transformer.Ref{Path: cachedModel(t, cache, "facebook/esm2_t6_8M_UR50D"), Name: "esm2-8m"}
	t.Chdir(t.TempDir())
	touch(t, "nets/net.pt", "")
	touch(t, "nets/net-contact-regression.pt", "") // no second checkpoint
	wantRef(t, "nets/net.pt", transformer.Ref{Path: "nets/net.pt", Name: "net"})
	wantRef(t, "nets", transformer.Ref{Path: "nets", Name: "nets"})
	// A folder called like a hub id wins.
	touch(t, "facebook/esm2_t6_8M_UR50D/notes.txt", "")
	wantRef(t, "facebook/esm2_t6_8M_UR50D", transformer.Ref{Path: "facebook/esm2_t6_8M_UR50D", Name: "esm2_t6_8M_UR50D"})
	// A short name is the default of a flag: an output folder of that name must not stand in its way.
	for _, name := range []string{"esm2-8m", "esm2_t6_8M_UR50D"} {
		touch(t, name+"/result.npy", "")
		wantRef(t, name, cached)
		touch(t, name+"/model.safetensors", "")
		wantRef(t, name, transformer.Ref{Path: name, Name: name})
	}
}

func TestResolveRefusesUnknownNames(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	for _, name := range []string{"", "esm2-9m", "a/b/c", "../x/y", "-x/y", "org/na me", "ESM2-8M", "esm2-tiny", "dnabert-s-2l"} {
		wantRefused(t, name, "dnabert-s,", "dnabert-2", "esm2-8m", "esm2-35m", "esm2-15b", "ORG/NAME")
	}
}
