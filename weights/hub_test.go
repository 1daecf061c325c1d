package weights

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seqembed/weights/hub"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// cache creates an empty folder and sets the environment so that this folder is the Hugging Face cache.
func cache(t *testing.T) string {
	folder := t.TempDir()
	t.Setenv("HF_HUB_CACHE", folder)
	return folder
}

// cachedModel puts a model into the cache as Hugging Face's tools do: its snapshot contains symbolic links to files in
// the folder blobs. It returns the folder of the snapshot.
func cachedModel(t *testing.T, cache, id string) string {
	model := filepath.Join(cache, "models--"+strings.ReplaceAll(id, "/", "--"))
	writeFile(t, model, "refs/main", []byte(commit+"\n"))
	writeFile(t, model, "blobs/aa11", safetensorsOf(f32Tensor("w", []int{1}, 3)))
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

func TestCachedSnapshot(t *testing.T) {
	const id = "some-org/a-model"
	snapshot := cachedModel(t, cache(t), id)
	if folder, err := CachedSnapshot(id, ""); err != nil || folder != snapshot {
		t.Errorf("%s, %v; want %s", folder, err, snapshot)
	}
	// The path of the snapshot, and that of the file in it, must lead to the same model.
	for _, path := range []string{snapshot, filepath.Join(snapshot, "model.safetensors")} {
		if got, revision := hub.Of(path); got != id || revision != commit {
			t.Errorf("%s is of the model %q", path, got)
		}
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.Revision != commit || string(c.ConfigJSON) != `{"hidden_size":1}` || !slices.Equal(readAll(t, c, "w"), []float32{3}) {
			t.Errorf("revision %q, config %q", c.Revision, c.ConfigJSON)
		}
		c.Close()
	}
	if got, _ := hub.Of(t.TempDir()); got != "" {
		t.Errorf("a folder elsewhere is of the model %q", got)
	}
}

func TestCachedSnapshotSaysWhereAModelWouldBe(t *testing.T) {
	const id = "some-org/a-model"
	model := filepath.Join(cache(t), "models--some-org--a-model")
	absent := func() {
		t.Helper()
		_, err := CachedSnapshot(id, "")
		wantError(t, err, id, model)
		if !errors.Is(err, hub.ErrNotCached) {
			t.Error("it does not match ErrNotCached")
		}
	}
	absent()
	writeFile(t, model, "refs/main", []byte(commit))
	absent()
	writeFile(t, model, "snapshots/"+commit+"/config.json", []byte("{}"))
	absent()
	writeFile(t, model, "refs/main", []byte("../../elsewhere"))
	_, err := CachedSnapshot(id, "")
	wantError(t, err, filepath.Join(model, "refs", "main"), `"../../elsewhere"`)
}

// TestCachedSnapshotWithoutRefs checks a cache without refs/main, for example one that was copied in part. If the model
// has one snapshot, CachedSnapshot must return it. If the model has several snapshots, CachedSnapshot must return an
// error.
func TestCachedSnapshotWithoutRefs(t *testing.T) {
	const id = "some-org/a-model"
	snapshot := cachedModel(t, cache(t), id)
	if err := os.RemoveAll(filepath.Join(snapshot, "..", "..", "refs")); err != nil {
		t.Fatal(err)
	}
	if folder, err := CachedSnapshot(id, ""); err != nil || folder != snapshot {
		t.Errorf("%s, %v; want %s", folder, err, snapshot)
	}
	writeFile(t, snapshot, "../ffff456789abcdef0123456789abcdef01234567/config.json", []byte("{}"))
	_, err := CachedSnapshot(id, "")
	wantError(t, err, id, "2 snapshots", snapshot)
}

// TestLinksToMissingBlobs checks that Open names the link in its error if the config.json or the weights of a cached
// model are links to a missing file.
func TestLinksToMissingBlobs(t *testing.T) {
	snapshot := cachedModel(t, cache(t), "some-org/a-model")
	for _, c := range []struct{ blob, file string }{{"bb22", "config.json"}, {"aa11", "model.safetensors"}} {
		if err := os.Remove(filepath.Join(snapshot, "..", "..", "blobs", c.blob)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(snapshot)
		wantError(t, err, filepath.Join(snapshot, c.file), "link to", c.blob, "missing")
	}
}

// TestBlobDigest checks that SHA256 returns ErrDamaged for a file in the Hugging Face cache whose name is another
// SHA-256 than that of its content.
func TestBlobDigest(t *testing.T) {
	snapshot := cachedModel(t, cache(t), "some-org/a-model")
	blobs, link := filepath.Join(snapshot, "..", "..", "blobs"), filepath.Join(snapshot, "model.safetensors")
	content, err := os.ReadFile(link)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(content)
	blob := writeFile(t, blobs, hex.EncodeToString(digest[:]), content)
	if err := errors.Join(os.Remove(link), os.Symlink(blob, link)); err != nil {
		t.Fatal(err)
	}
	sum := func() (string, error) {
		c, err := Open(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.SHA256(t.Context())
	}
	if got, err := sum(); err != nil || got != filepath.Base(blob) {
		t.Errorf("%s, %v", got, err)
	}
	content[len(content)-1] ^= 1
	writeFile(t, blobs, filepath.Base(blob), content)
	_, err = sum()
	wantError(t, err, filepath.Base(blob), "damaged")
	if !errors.Is(err, ErrDamaged) {
		t.Error("it does not match ErrDamaged")
	}
}

func TestHubFiles(t *testing.T) {
	small := []string{"config.json", "tokenizer.json", "vocab.txt"}
	with := func(names ...string) []string { return append(slices.Clone(small), names...) }
	others := []string{"README.md", "flax_model.msgpack", "onnx/config.json", "onnx/model.onnx", ".gitattributes"}
	for what, c := range map[string]struct{ all, want []string }{
		"both": {with("pytorch_model.bin", "model.safetensors"), with("model.safetensors")},
		"bin":  {with("pytorch_model.bin"), with("pytorch_model.bin")},
		"shards": {
			with("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
				"pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"),
			with("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
		},
		"shards of PyTorch": {
			with("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"),
			with("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"),
		},
	} {
		if got, err := HubFiles(slices.Concat(others, c.all)); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, error %v; want %q", what, got, err, c.want)
		}
	}
	_, err := HubFiles(with("tf_model.h5"))
	wantError(t, err, "no checkpoint", "model.safetensors")
}

func TestLabels(t *testing.T) {
	t.Chdir(t.TempDir())
	for path, name := range map[string]string{
		"my model (2)/model.safetensors":   "my-model--2",
		"nets/a_model_8M.pt":               "a_model_8M",
		"nets/big.safetensors.index.json":  "big",
		"nets/v1.2.bin":                    "v1.2",
		"ünï/pytorch_model.bin.index.json": "n",
		"...safetensors":                   "model",
	} {
		writeFile(t, ".", path, nil)
		if got, err := Label(path); err != nil || got != name {
			t.Errorf("%s has the label %s, %v; want %s", path, got, err, name)
		}
	}
	t.Chdir("my model (2)")
	if got, err := Label("."); err != nil || got != "my-model--2" {
		t.Errorf(`"." has the label %s, %v`, got, err)
	}
}
