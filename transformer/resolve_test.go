package transformer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seqembed/weights"
)

// cachedModel adds a snapshot of a model to the Hugging Face cache. The snapshot contains a file that looks like a
// checkpoint.
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

// wantFound checks that List.find returns this path and this label for a model called name.
func wantFound(t *testing.T, name, path, label string) {
	t.Helper()
	if p, l, err := Families.find(name); err != nil || p != path || l != label {
		t.Errorf("%s is %s, called %s, %v; want %s, called %s", name, p, l, err, path, label)
	}
}

// wantRefused checks that List.Open refuses a name with an error that contains all parts.
func wantRefused(t *testing.T, name string, parts ...string) {
	t.Helper()
	_, err := Families.Open(name)
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
		path, label := cachedModel(t, cache, id), names[0]
		wantFound(t, id, path, label)
		if strings.Contains(id, "UR50D") || strings.Contains(id, "DNABERT") {
			for _, name := range names {
				wantFound(t, name, path, label)
			}
		}
		// The path of the snapshot and the path of the file in it have the same label as the model.
		wantFound(t, path, path, label)
		path = filepath.Join(path, "model.safetensors")
		wantFound(t, path, path, label)
	}
	wantRefused(t, "esm2-35m", "facebook/esm2_t12_35M_UR50D")
	for _, name := range []string{"esm2-35m@v1", "esm2_t12_35M_UR50D@v1", "facebook/esm2_t12_35M_UR50D@v1"} {
		_, err := Families.Open(name)
		var missing *weights.NotCached
		if !errors.As(err, &missing) || missing.ID != "facebook/esm2_t12_35M_UR50D" || missing.Revision != "v1" {
			t.Errorf("%s, which is not cached, gives %v", name, err)
		}
	}
}

func TestResolveSyntheticModels(t *testing.T) {
	for name, want := range map[string]struct{ label, source string }{
		"synthetic:esm2-tiny":                     {"esm2-tiny", "synthetic:esm2-tiny@0"},
		"synthetic:dnabert-s-2l@7":                {"dnabert-s-2l", "synthetic:dnabert-s-2l@7"},
		"synthetic:dnabert-2":                     {"dnabert-2", "synthetic:dnabert-2@0"},
		"synthetic:esm2-15b@18446744073709551615": {"esm2-15b", "synthetic:esm2-15b@18446744073709551615"},
	} {
		c, err := Families.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if c.Label != want.label || c.Source != want.source || !c.Synthetic {
			t.Errorf("%s has the label %s and the source %s", name, c.Label, c.Source)
		}
	}
	wantRefused(t, "synthetic:esm3", `"esm3"`, "dnabert-s,", "dnabert-2", "dnabert-s-2l", "dnabert-tiny", "esm2-8m", "esm2-15b", "esm2-tiny", "esm2-hd128")
	for _, seed := range []string{"", "-1", "x", "18446744073709551616", "1@2"} {
		wantRefused(t, "synthetic:esm2-8m@"+seed, "synthetic:esm2-8m@"+seed, "seed")
	}
}

func TestResolvePaths(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("HF_HUB_CACHE", cache)
	cached := cachedModel(t, cache, "facebook/esm2_t6_8M_UR50D")
	t.Chdir(t.TempDir())
	touch(t, "nets/net.pt", "")
	touch(t, "nets/net-contact-regression.pt", "") // not counted as a checkpoint
	wantFound(t, "nets/net.pt", "nets/net.pt", "net")
	wantFound(t, "nets", "nets", "nets")
	// A folder whose name is a hub id takes precedence over the cached model.
	touch(t, "facebook/esm2_t6_8M_UR50D/notes.txt", "")
	wantFound(t, "facebook/esm2_t6_8M_UR50D", "facebook/esm2_t6_8M_UR50D", "esm2_t6_8M_UR50D")
	// The default of --esm-model is a short name. An output folder with the same name must not hide the model.
	for _, name := range []string{"esm2-8m", "esm2_t6_8M_UR50D"} {
		touch(t, name+"/result.npy", "")
		wantFound(t, name, cached, "esm2-8m")
		touch(t, name+"/model.safetensors", "")
		wantFound(t, name, name, name)
	}
}

func TestResolveRefusesUnknownNames(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	for _, name := range []string{"", "esm2-9m", "a/b/c", "../x/y", "-x/y", "org/na me", "ESM2-8M", "esm2-tiny", "dnabert-s-2l"} {
		wantRefused(t, name, "dnabert-s,", "dnabert-2", "esm2-8m", "esm2-35m", "esm2-15b", "ORG/NAME")
	}
}

// TestResolveTorchHub checks that a model in fair-esm's cache is found by fair-esm's name and by its short name. If
// Hugging Face's cache contains the model, too, fair-esm's name must find the file in fair-esm's cache, and the short
// name must find the snapshot in Hugging Face's cache.
func TestResolveTorchHub(t *testing.T) {
	cache, torch := t.TempDir(), t.TempDir()
	t.Setenv("HF_HUB_CACHE", cache)
	t.Setenv("TORCH_HOME", torch)
	small, large := Families[1].Published[0], Families[1].Published[1]
	file := filepath.Join(torch, "hub", "checkpoints", "esm2_t6_8M_UR50D.pt")
	touch(t, file, "")
	touch(t, filepath.Join(torch, "hub", "checkpoints", "esm2_t6_8M_UR50D-contact-regression.pt"), "")
	wantFound(t, "esm2_t6_8M_UR50D", file, "esm2-8m")
	wantFound(t, "esm2-8m", file, "esm2-8m")
	// A model named by its hub id or with a revision is not searched in the cache of fair-esm.
	for _, name := range []string{"facebook/esm2_t6_8M_UR50D", "esm2-8m@main", "esm2_t6_8M_UR50D@main"} {
		var missing *weights.NotCached
		if _, err := Families.Open(name); !errors.As(err, &missing) {
			t.Errorf("%s gives %v", name, err)
		}
	}
	snapshot := cachedModel(t, cache, "facebook/esm2_t6_8M_UR50D")
	wantFound(t, "esm2_t6_8M_UR50D", file, "esm2-8m")
	wantFound(t, "esm2-8m", snapshot, "esm2-8m")
	if path, err := Families.Cached(small); err != nil || path != snapshot {
		t.Errorf("%s is cached at %q, %v", small.Name, path, err)
	}
	if path, err := Families.Cached(large); err != nil || path != "" {
		t.Errorf("%s is cached at %q, %v", large.Name, path, err)
	}
}

// TestParameters compares the numbers of parameters with the sizes of the published checkpoints without their heads:
// ESM-2's names give the sizes in millions or billions, and DNABERT-2 has 117 million with its heads.
func TestParameters(t *testing.T) {
	for name, want := range map[string][2]float64{"esm2-8m": {7.3, 8}, "esm2-35m": {32.5, 35}, "esm2-150m": {146, 150}, "esm2-650m": {645, 652},
		"esm2-3b": {2825, 3000}, "esm2-15b": {15000, 15200}, "dnabert-2": {115, 117.5}} {
		config, ok := Families.Config(name)
		if millions := float64(config.Parameters()) / 1e6; !ok || millions < want[0] || millions > want[1] {
			t.Errorf("%s has %.2f million parameters, want %v", name, millions, want)
		}
	}
}
