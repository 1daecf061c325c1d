package weights

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// cache makes an empty Hugging Face cache the one that is used.
func cache(t *testing.T) string {
	folder := t.TempDir()
	t.Setenv("HF_HUB_CACHE", folder)
	return folder
}

// cachedModel puts a checkpoint into the cache as Hugging Face's tools do: the
// snapshot holds symbolic links to blobs.
func cachedModel(t *testing.T, cache, id string) string {
	model := filepath.Join(cache, cacheName(id))
	writeFile(t, model, "refs/main", []byte(commit+"\n"))
	writeFile(t, model, "blobs/aa11", safetensorsOf(f32Tensor("esm.w", []int{1}, 3)))
	writeFile(t, model, "blobs/bb22", []byte(`{"hidden_size":1}`))
	snapshot := filepath.Join(model, "snapshots", commit)
	if err := os.MkdirAll(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, blob := range map[string]string{"model.safetensors": "aa11", "config.json": "bb22"} {
		if err := os.Symlink(filepath.Join("..", "..", "blobs", blob), filepath.Join(snapshot, name)); err != nil {
			t.Skipf("skipped: this file system has no symbolic links (%v)", err)
		}
	}
	return snapshot
}

func TestResolveFindsCachedModels(t *testing.T) {
	snapshot := cachedModel(t, cache(t), "facebook/esm2_t6_8M_UR50D")
	want := Ref{Kind: Hub, Path: snapshot, Name: "esm2-8m", ID: "facebook/esm2_t6_8M_UR50D", Revision: commit}
	for _, name := range []string{"esm2-8m", "facebook/esm2_t6_8M_UR50D"} {
		ref, err := ResolveModel(name)
		if err != nil || ref != want {
			t.Errorf("%s is %+v, %v; want %+v", name, ref, err, want)
		}
	}
	// The snapshot named as a path, and the file in it, are known as the same model.
	want.Kind = Local
	for _, want.Path = range []string{snapshot, filepath.Join(snapshot, "model.safetensors")} {
		if ref, err := ResolveModel(want.Path); err != nil || ref != want {
			t.Errorf("%s is %+v, %v; want %+v", want.Path, ref, err, want)
		}
		c, err := Open(want.Path)
		if err != nil {
			t.Fatal(err)
		}
		if c.Revision() != commit || string(c.Config()) != `{"hidden_size":1}` || !slices.Equal(readAll(t, c, "w"), []float32{3}) {
			t.Errorf("revision %q, config %q", c.Revision(), c.Config())
		}
		c.Close()
	}
}

func TestHubModelsWithoutShortNameAreCalledAfterTheirLastPart(t *testing.T) {
	cachedModel(t, cache(t), "some-org/My.Model")
	if ref, err := ResolveModel("some-org/My.Model"); err != nil || ref.Name != "My.Model" || ref.ID != "some-org/My.Model" {
		t.Errorf("%+v, %v", ref, err)
	}
}

func TestResolveSaysWhereAModelWouldBe(t *testing.T) {
	folder := cache(t)
	model := filepath.Join(folder, "models--zhihan1996--DNABERT-S")
	refused := func(what string) {
		t.Helper()
		_, err := ResolveModel("dnabert-s")
		wantError(t, err, "zhihan1996/DNABERT-S", what)
		if strings.Contains(what, "not built yet") {
			wantError(t, err, model, "config.json", "model.safetensors")
			if !errors.Is(err, ErrNotCached) {
				t.Error("it does not match ErrNotCached")
			}
		}
	}
	refused("downloading is not built yet")
	writeFile(t, model, "refs/main", []byte(commit))
	refused("downloading is not built yet")
	writeFile(t, model, "snapshots/"+commit+"/config.json", []byte("{}"))
	refused("downloading is not built yet")
	writeFile(t, model, "refs/main", []byte("../../elsewhere"))
	_, err := ResolveModel("dnabert-s")
	wantError(t, err, filepath.Join(model, "refs", "main"), `"../../elsewhere"`)
}

func TestCacheFolderFollowsTheEnvironment(t *testing.T) {
	for _, variable := range []string{"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(variable, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // what Windows calls it
	for _, step := range []struct{ variable, value, want string }{
		{"HF_HUB_CACHE", "", filepath.Join(home, ".cache", "huggingface", "hub")},
		{"XDG_CACHE_HOME", "/x", filepath.Join("/x", "huggingface", "hub")},
		{"HF_HOME", "/y", filepath.Join("/y", "hub")},
		{"HF_HUB_CACHE", "/z", "/z"},
	} {
		t.Setenv(step.variable, step.value)
		if got, err := cacheFolder(); err != nil || got != step.want {
			t.Errorf("with %s=%s the cache is %s, %v; want %s", step.variable, step.value, got, err, step.want)
		}
	}
}

func TestResolveSyntheticModels(t *testing.T) {
	for name, want := range map[string]Ref{
		"synthetic:esm2-tiny":                     {Kind: SyntheticModel, Name: "esm2-tiny", ID: "synthetic:esm2-tiny@0", Synthetic: "esm2-tiny"},
		"synthetic:dnabert-s-2l@7":                {Kind: SyntheticModel, Name: "dnabert-s-2l", ID: "synthetic:dnabert-s-2l@7", Seed: 7, Synthetic: "dnabert-s-2l"},
		"synthetic:esm2-15b@18446744073709551615": {Kind: SyntheticModel, Name: "esm2-15b", ID: "synthetic:esm2-15b@18446744073709551615", Seed: 1<<64 - 1, Synthetic: "esm2-15b"},
	} {
		if ref, err := ResolveModel(name); err != nil || ref != want {
			t.Errorf("%s is %+v, %v; want %+v", name, ref, err, want)
		}
	}
	_, err := ResolveModel("synthetic:esm3")
	wantError(t, err, append(SyntheticNames(), `"esm3"`)...)
	for _, seed := range []string{"", "-1", "x", "18446744073709551616", "1@2"} {
		_, err := ResolveModel("synthetic:esm2-8m@" + seed)
		wantError(t, err, "synthetic:esm2-8m@"+seed, "seed")
	}
}

func TestResolvePathsAndTheirLabels(t *testing.T) {
	cache(t)
	t.Chdir(t.TempDir())
	checkpoint := safetensorsOf(f32Tensor("w", []int{1}, 1))
	for path, name := range map[string]string{
		"my model (2)/model.safetensors":   "my-model--2",
		"nets/esm2_t6_8M_UR50D.pt":         "esm2_t6_8M_UR50D",
		"nets/big.safetensors.index.json":  "big",
		"nets/v1.2.bin":                    "v1.2",
		"ünï/pytorch_model.bin.index.json": "n",
		"...safetensors":                   "model",
	} {
		writeFile(t, ".", path, checkpoint)
		if ref, err := ResolveModel(path); err != nil || ref != (Ref{Kind: Local, Path: path, Name: name}) {
			t.Errorf("%s is %+v, %v; want the label %s", path, ref, err, name)
		}
	}
	t.Chdir("my model (2)")
	if ref, err := ResolveModel("."); err != nil || ref.Name != "my-model--2" {
		t.Errorf(`"." is %+v, %v`, ref, err)
	}
}

func TestResolvePrefersAPathThatExists(t *testing.T) {
	cachedModel(t, cache(t), "facebook/esm2_t6_8M_UR50D")
	t.Chdir(t.TempDir())
	writeFile(t, ".", "facebook/esm2_t6_8M_UR50D/notes.txt", nil)
	if ref, err := ResolveModel("facebook/esm2_t6_8M_UR50D"); err != nil || ref.Kind != Local {
		t.Errorf("a folder called like a hub id is %+v, %v", ref, err)
	}
	// A short name is the default of a flag: an output folder of that name must not stand in its way.
	writeFile(t, ".", "esm2-8m/result.npy", nil)
	if ref, err := ResolveModel("esm2-8m"); err != nil || ref.Kind != Hub {
		t.Errorf("a short name beside a folder without checkpoint is %+v, %v", ref, err)
	}
	writeFile(t, ".", "esm2-8m/model.safetensors", nil)
	if ref, err := ResolveModel("esm2-8m"); err != nil || ref.Kind != Local {
		t.Errorf("a short name beside a folder with a checkpoint is %+v, %v", ref, err)
	}
}

func TestResolveRefusesWhatItDoesNotKnow(t *testing.T) {
	cache(t)
	for _, name := range []string{"", "esm2-9m", "a/b/c", "../x/y", "-x/y", "org/na me", "ESM2-8M"} {
		_, err := ResolveModel(name)
		wantError(t, err, append(ShortNames(), "ORG/NAME")...)
	}
}
