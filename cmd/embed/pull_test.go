package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seqembed/weights/hub/hubtest"
)

// localHub starts an imitation of the Hugging Face hub that offers a tiny model under the id of esm2-8m. It sets the
// environment so that the program uses this hub and an empty cache. snapshot is the folder of the model in the cache.
func localHub(t *testing.T) (h *hubtest.Hub, snapshot string) {
	t.Helper()
	workspace(t)
	writeCheckpoint(t, "tiny", tiny, nil)
	files := map[string][]byte{"README.md": []byte("# not needed"), "flax_model.msgpack": nil}
	for _, name := range []string{"config.json", "model.safetensors"} {
		content, err := os.ReadFile(filepath.Join("tiny", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = content
	}
	h = hubtest.New(t, "facebook/esm2_t6_8M_UR50D", files)
	cache := filepath.Join(t.TempDir(), "cache")
	t.Setenv("HF_HUB_CACHE", cache)
	t.Setenv("HF_ENDPOINT", h.URL)
	t.Setenv("HF_HUB_OFFLINE", "")
	t.Setenv("HF_TOKEN", "")
	return h, filepath.Join(cache, "models--facebook--esm2_t6_8M_UR50D", "snapshots", hubtest.Commit)
}

func TestPullCommand(t *testing.T) {
	h, snapshot := localHub(t)
	for range 2 {
		r := embed(t, "pull", "esm2-8m").wantCode(exitDone)
		if r.stdout != snapshot+"\n" {
			t.Errorf("pull prints %q, want %q", r.stdout, snapshot)
		}
		if r = embed(t, "pull", "-q", "facebook/esm2_t6_8M_UR50D@v1").wantCode(exitDone); r.stderr != "" {
			t.Errorf("pull -q writes %q", r.stderr)
		}
	}
	entries, err := os.ReadDir(snapshot)
	if err != nil || len(entries) != 2 {
		t.Errorf("the snapshot holds %v, error %v", entries, err)
	}
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"pull", exitUsage, []string{"one model"}},
		{"pull esm2-8n", exitUsage, []string{`"esm2-8n"`, "esm2-8m"}},
		{"pull ./tiny", exitUsage, []string{"./tiny"}},
		{"pull esm2-35m", exitNothing, []string{"facebook/esm2_t12_35M_UR50D", "not found"}},
		{"pull esm2-8m@v9", exitNothing, []string{"v9", "not found"}},
	} {
		embed(t, strings.Fields(c.args)...).wantCode(c.code).wantProblem(c.says...)
	}
	t.Setenv("HF_HUB_OFFLINE", "1")
	h.Set(func() {})
	embed(t, "pull", "esm2-8m").wantCode(exitNothing).wantProblem("HF_HUB_OFFLINE", "hf download")
	if len(h.Requests) > 0 {
		t.Errorf("HF_HUB_OFFLINE does not forbid the requests %q", h.Requests)
	}
	t.Setenv("HF_HUB_OFFLINE", "")
	h.Set(func() { h.Token = "secret" })
	embed(t, "pull", "esm2-8m").wantCode(exitNothing).wantProblem("HF_TOKEN")
	t.Setenv("HF_TOKEN", "secret")
	embed(t, "pull", "esm2-8m").wantCode(exitDone)
}

// TestFirstUse checks that a run downloads the model that it needs, that later runs do not download it again, and that
// the manifest names the commit of the model.
func TestFirstUse(t *testing.T) {
	h, snapshot := localHub(t)
	write(t, "p.faa", proteinFile)
	embed(t, "--offline", "--esm-model", "esm2-8m", "-o", "out", "p.faa").wantCode(exitNothing).wantProblem("--offline", "hf download")
	if len(h.Requests) > 0 {
		t.Errorf("--offline makes the requests %q", h.Requests)
	}
	embed(t, "--esm-model", "esm2-8m", "-o", "out", "p.faa").wantCode(exitDone)
	if manifest, err := os.ReadFile("out/manifest.jsonl"); err != nil || !strings.Contains(string(manifest), hubtest.Commit) {
		t.Errorf("the manifest does not name the commit: %s, error %v", manifest, err)
	}
	h.Set(func() {})
	embed(t, "--esm-model", "esm2-8m", "-o", "out2", "p.faa").wantCode(exitDone)
	if len(h.Requests) > 0 {
		t.Errorf("a cached model makes the requests %q", h.Requests)
	}
	// If a file of the cache is damaged or removed, embed pull fetches it again, as the error says.
	link, err := filepath.EvalSymlinks(filepath.Join(snapshot, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func() error{func() error { return os.Truncate(link, 5000) }, func() error { return os.Remove(link) }} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		embed(t, "--esm-model", "esm2-8m", "-o", "out2", "p.faa").wantCode(exitNothing).wantProblem("embed pull esm2-8m fetches")
		embed(t, "pull", "esm2-8m").wantCode(exitDone)
	}
	// The same weights from the folder and from the hub give the same bits.
	embed(t, "--esm-model", "tiny", "-o", "out3", "--format", "npy", "p.faa").wantCode(exitDone)
	embed(t, "--esm-model", "esm2-8m", "-o", "out3", "--format", "npy", "p.faa").wantCode(exitDone)
	a, errA := os.ReadFile("out3/p.tiny.npy")
	b, errB := os.ReadFile("out3/p.esm2-8m.npy")
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("the embeddings differ (errors %v, %v)", errA, errB)
	}
}

// TestInterruptedPull checks that a model whose download has failed does not count as cached.
func TestInterruptedPull(t *testing.T) {
	h, snapshot := localHub(t)
	write(t, "p.faa", proteinFile)
	h.Set(func() { h.Garbage = true }) // the hub sends zeros instead of the weights, and a good config.json
	embed(t, "--esm-model", "esm2-8m", "-o", "out", "p.faa").wantCode(exitNothing).wantProblem("damaged", "model.safetensors")
	if _, err := os.Stat(filepath.Join(snapshot, "config.json")); err != nil {
		t.Errorf("the test proves nothing: %v", err)
	}
	h.Set(func() { h.Garbage = false })
	embed(t, "--esm-model", "esm2-8m", "-o", "out", "p.faa").wantCode(exitDone)
}

// TestBarOfADownload checks the progress bar of a file that is being downloaded. Bytes of an earlier, interrupted
// download count as done, but not in the rate.
func TestBarOfADownload(t *testing.T) {
	d := &download{dashboard: true}
	if lines := d.lines(80); len(lines) != 0 {
		t.Errorf("before the first file: %q", lines)
	}
	d.show("model.safetensors", 50e6, 200e6)
	d.present.Load().began = time.Now().Add(-time.Hour)
	d.show("model.safetensors", 50e6, 200e6)
	want := "model.safetensors  25% of 200 MB  0 MB/s  #####..............."
	if lines := d.lines(80); len(lines) != 1 || lines[0] != want {
		t.Errorf("%q, want %q", lines, want)
	}
	if lines := d.lines(39); len(lines) != 1 || lines[0] != "model.safetensors  25% of 200 MB" {
		t.Errorf("%q", lines)
	}
}
