package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	model  = "org/model"
	commit = "0123456789abcdef0123456789abcdef01234567"
)

// fakeHub is a local server with the protocol of the hub: large files are on a second server, to which it redirects.
type fakeHub struct {
	*httptest.Server
	store *httptest.Server // of large files

	mu       sync.Mutex
	files    map[string][]byte
	large    map[string]bool
	requests []string
	token    string
	cut      int    // the next answers of the store end after so many bytes
	cuts     int    // so many answers
	garbage  bool   // the store sends another content
	status   int    // of every answer, if not 0
	busy     int    // so many answers are 503
	ranges   bool   // the store honours ranges
	auth     string // the last Authorization that the store saw
}

func newHub(t *testing.T) *fakeHub {
	h := &fakeHub{files: map[string][]byte{}, large: map[string]bool{}, ranges: true}
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	h.store = httptest.NewServer(http.HandlerFunc(h.serveLarge))
	t.Cleanup(h.Server.Close)
	t.Cleanup(h.store.Close)
	h.files["config.json"] = []byte(`{"model_type": "esm"}`)
	h.files["folder/vocab.txt"] = []byte("a\nb\n")
	weights := make([]byte, 300_000)
	for i, rng := 0, rand.New(rand.NewPCG(1, 2)); i < len(weights); i++ {
		weights[i] = byte(rng.Uint32())
	}
	h.files["model.safetensors"], h.large["model.safetensors"] = weights, true
	return h
}

func (h *fakeHub) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, r.Method+" "+r.URL.Path)
	switch {
	case h.busy > 0:
		h.busy--
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	case h.status != 0:
		w.WriteHeader(h.status)
		return
	case h.token != "" && r.Header.Get("Authorization") != "Bearer "+h.token:
		w.WriteHeader(http.StatusUnauthorized)
		return
	case r.URL.Path == "/api/models/"+model+"/revision/main", r.URL.Path == "/api/models/"+model+"/revision/v1":
		var siblings []string
		for _, name := range slices.Sorted(maps.Keys(h.files)) {
			siblings = append(siblings, fmt.Sprintf(`{"rfilename": %q}`, name))
		}
		fmt.Fprintf(w, `{"id": %q, "sha": %q, "siblings": [%s]}`, model, commit, strings.Join(siblings, ","))
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/"+model+"/resolve/"+commit+"/")
	content, found := h.files[name]
	if !ok || !found {
		http.NotFound(w, r)
		return
	}
	if h.large[name] {
		w.Header().Set("X-Linked-Etag", fmt.Sprintf(`"%x"`, sha256.Sum256(content)))
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(content)))
		http.Redirect(w, r, h.store.URL+"/"+name, http.StatusFound)
		return
	}
	w.Header().Set("Etag", fmt.Sprintf(`"%x"`, sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))))
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(content)
	}
}

func (h *fakeHub) serveLarge(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, "store "+r.Method+" "+r.Header.Get("Range"))
	h.auth = r.Header.Get("Authorization")
	content := h.files[strings.TrimPrefix(r.URL.Path, "/")]
	if h.garbage {
		content = make([]byte, len(content))
	}
	from := 0
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && h.ranges {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		from = 0
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	}
	end := len(content)
	if h.cuts > 0 {
		h.cuts--
		end = min(end, from+h.cut)
	}
	_, _ = w.Write(content[from:end]) // a client that has gone does not matter
}

// set changes the server while nothing runs.
func (h *fakeHub) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = nil
	change()
}

func (h *fakeHub) client(cache string) *Client {
	return &Client{Endpoint: h.URL, Cache: cache, pause: time.Millisecond}
}

func all(files []string) ([]string, error) { return files, nil }

// check compares a snapshot with the server, and looks for files that must not be there.
func (h *fakeHub) check(t *testing.T, cache, folder string) {
	t.Helper()
	if want := filepath.Join(cache, "models--org--model", "snapshots", commit); folder != want {
		t.Errorf("the snapshot is %s, want %s", folder, want)
	}
	for name, want := range h.files {
		if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(got) != string(want) {
			t.Errorf("%s has %d bytes that differ (error %v)", name, len(got), err)
		}
	}
	ref, err := os.ReadFile(filepath.Join(cache, "models--org--model", "refs", "main"))
	if err != nil || string(ref) != commit {
		t.Errorf("refs/main holds %q (error %v)", ref, err)
	}
	blobs, err := os.ReadDir(filepath.Join(cache, "models--org--model", "blobs"))
	if err != nil || len(blobs) != len(h.files) {
		t.Errorf("the cache has %d blobs, want %d: %v (error %v)", len(blobs), len(h.files), blobs, err)
	}
}

func TestPull(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	c := h.client(cache)
	seen := map[string]int64{}
	c.Progress = func(file string, done, size int64) {
		if done < seen[file] || done > size || size != int64(len(h.files[file])) {
			t.Errorf("progress of %s: %d after %d, of %d bytes", file, done, seen[file], size)
		}
		seen[file] = done
	}
	folder, err := c.Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	h.check(t, cache, folder)
	for file, done := range seen {
		if done != int64(len(h.files[file])) {
			t.Errorf("the progress of %s ends at %d", file, done)
		}
	}
	if target, err := os.Readlink(filepath.Join(folder, "folder", "vocab.txt")); err != nil || !strings.HasPrefix(target, "../../../blobs/") {
		t.Errorf("a file of the snapshot leads to %q (error %v)", target, err)
	}

	h.set(func() {})
	if _, err := c.Pull(t.Context(), model, "main", all); err != nil {
		t.Fatal(err)
	}
	if len(h.requests) != 1 {
		t.Errorf("a model that is complete takes the requests %q", h.requests)
	}
	t.Setenv("HF_HUB_CACHE", cache)
	for _, revision := range []string{"", "main", commit} {
		if got, err := Snapshot(model, revision); err != nil || got != folder {
			t.Errorf("revision %q is found at %s (error %v)", revision, got, err)
		}
	}
	if _, err := Snapshot(model, "v1"); !errors.Is(err, ErrNotCached) {
		t.Errorf("a revision that is not there: %v", err)
	}
	if _, err := c.Pull(t.Context(), model, "v1", all); err != nil {
		t.Fatal(err)
	}
	if got, err := Snapshot(model, "v1"); err != nil || got != folder {
		t.Errorf("revision v1 is found at %s (error %v)", got, err)
	}
}

// TestChosenFiles checks that only the chosen files are fetched.
func TestChosenFiles(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	folder, err := h.client(cache).Pull(t.Context(), model, "", func([]string) ([]string, error) { return []string{"config.json"}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 1 || slices.ContainsFunc(h.requests, func(r string) bool { return strings.Contains(r, "model.safetensors") }) {
		t.Errorf("the snapshot has %v after the requests %q", entries, h.requests)
	}
	refused := errors.New("nothing to choose")
	if _, err := h.client(cache).Pull(t.Context(), model, "", func([]string) ([]string, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
}

// TestResume cuts the connection: within a call the rest is fetched, and after a call that failed, the next one
// continues.
func TestResume(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprint("ranges ", ranges), func(t *testing.T) {
			h, cache := newHub(t), t.TempDir()
			h.set(func() { h.ranges, h.cut, h.cuts = ranges, 100_000, 2 })
			c := h.client(cache)
			c.attempts = 2
			if _, err := c.Pull(t.Context(), model, "", all); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "model.safetensors") {
				t.Fatalf("after two cuts the error is %v", err)
			}
			if _, err := os.Stat(filepath.Join(cache, "models--org--model", "refs", "main")); err == nil {
				t.Error("an incomplete snapshot has a reference")
			}
			h.set(func() { h.cuts = 0 })
			folder, err := c.Pull(t.Context(), model, "", all)
			if err != nil {
				t.Fatal(err)
			}
			h.check(t, cache, folder)
			from := "bytes=200000-"
			if !ranges {
				from = "bytes=100000-"
			}
			if !slices.Contains(h.requests, "store GET "+from) {
				t.Errorf("no request continues with %s: %q", from, h.requests)
			}
		})
	}
}

// TestDamage checks that a wrong content is an error, is not kept, and does not spoil the next call.
func TestDamage(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.set(func() { h.garbage = true })
	if _, err := h.client(cache).Pull(t.Context(), model, "", all); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "model.safetensors") {
		t.Fatalf("error %v", err)
	}
	h.set(func() { h.garbage = false })
	folder, err := h.client(cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	h.check(t, cache, folder)
}

func TestErrors(t *testing.T) {
	h := newHub(t)
	for _, c := range []struct {
		what   string
		change func(c *Client)
		id     string
		want   error
		text   string
	}{
		{"no such model", nil, "org/other", ErrNotFound, "org/other"},
		{"a token is needed", func(*Client) { h.token = "secret" }, model, ErrDenied, "HF_TOKEN"},
		{"another token is needed", func(c *Client) { h.token, c.Token = "secret", "wrong" }, model, ErrDenied, "licence"},
		{"busy for too long", func(*Client) { h.busy = 100 }, model, ErrUnreachable, "503"},
		{"no hub", func(*Client) { h.status = http.StatusTeapot }, model, ErrUnreachable, "418"},
		{"nobody there", func(c *Client) { c.Endpoint = "http://127.0.0.1:1" }, model, ErrUnreachable, "127.0.0.1:1"},
		{"no id", nil, "../../etc", nil, "ORG/NAME"},
	} {
		t.Run(c.what, func(t *testing.T) {
			client := h.client(t.TempDir())
			h.set(func() {
				h.token, h.busy, h.status = "", 0, 0
				if c.change != nil {
					c.change(client)
				}
			})
			_, err := client.Pull(t.Context(), c.id, "", all)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
	h.set(func() { h.token, h.busy, h.status = "secret", 2, 0 })
	client := h.client(t.TempDir())
	client.Token = "secret"
	if _, err := client.Pull(t.Context(), model, "", all); err != nil {
		t.Errorf("with the token, after two answers 503: %v", err)
	}
	if h.auth != "" {
		t.Errorf("the other server is given %q", h.auth)
	}
	if _, err := client.Pull(t.Context(), model, "../main", all); err == nil {
		t.Error("a revision outside the cache is accepted")
	}
}

// TestHostileNames checks that no name leads out of the cache.
func TestHostileNames(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.set(func() { h.files["../../../../outside"] = []byte("x") })
	if _, err := h.client(filepath.Join(cache, "a", "b")).Pull(t.Context(), model, "", all); err == nil {
		t.Error("a file outside the snapshot is accepted")
	}
	found := 0
	err := filepath.WalkDir(cache, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found++
		}
		return err
	})
	if err != nil || found > 0 {
		t.Errorf("%d files are written (error %v)", found, err)
	}
}

// TestTogether has several clients pull the same model at once: each file crosses the network once.
func TestTogether(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := h.client(cache).Pull(t.Context(), model, "", all); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	h.check(t, cache, filepath.Join(cache, "models--org--model", "snapshots", commit))
	stored := 0
	for _, r := range h.requests {
		if strings.HasPrefix(r, "store GET") {
			stored++
		}
	}
	if stored != 1 {
		t.Errorf("the large file is fetched %d times", stored)
	}
}

// TestCancelled checks that Pull ends with its context, also while it waits for a lock.
func TestCancelled(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	etag := fmt.Sprintf("%x", sha256.Sum256(h.files["model.safetensors"]))
	unlock, err := lock(t.Context(), filepath.Join(cache, ".locks", "models--org--model", etag+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := h.client(cache).Pull(ctx, model, "", all); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestFromEnvironment(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_ENDPOINT", "HF_TOKEN",
		"HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", home)
	if err := os.WriteFile(filepath.Join(home, "token"), []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := FromEnvironment()
	if err != nil || c.Endpoint != "https://huggingface.co" || c.Token != "from a file" || c.Cache != filepath.Join(home, "hub") || Offline() {
		t.Errorf("%+v, error %v", c, err)
	}
	t.Setenv("HF_TOKEN", "given")
	t.Setenv("HF_ENDPOINT", "https://mirror.example/")
	t.Setenv("HF_HUB_OFFLINE", "1")
	if c, err = FromEnvironment(); err != nil || c.Endpoint != "https://mirror.example" || c.Token != "given" || !Offline() {
		t.Errorf("%+v, error %v", c, err)
	}
	t.Setenv("HF_ENDPOINT", "mirror")
	if _, err = FromEnvironment(); err == nil || !strings.Contains(err.Error(), "HF_ENDPOINT") {
		t.Errorf("error %v", err)
	}
}

// TestFullDisk checks that a write that fails is said as it is, and that the part stays for the next call.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	defer full.Close()
	h := newHub(t)
	p := &pull{Client: h.client(t.TempDir()), id: model, commit: commit}
	err = p.rest(t.Context(), "model.safetensors", full, 300_000)
	if err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}
