package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seqembed/weights/hub/hubtest"
)

const (
	model  = "org/model"
	commit = hubtest.Commit
)

func newHub(t *testing.T) *hubtest.Hub {
	weights := make([]byte, 300_000)
	for i, rng := 0, rand.New(rand.NewPCG(1, 2)); i < len(weights); i++ {
		weights[i] = byte(rng.Uint32())
	}
	return hubtest.New(t, model, map[string][]byte{
		"config.json":       []byte(`{"model_type": "esm"}`),
		"folder/vocab.txt":  []byte("a\nb\n"),
		"model.safetensors": weights,
	})
}

func clientOf(h *hubtest.Hub, cache string) *Client {
	return &Client{Endpoint: h.URL, Cache: cache, pause: time.Millisecond}
}

func all(files []string) ([]string, error) { return files, nil }

// check fails the test unless folder is the snapshot of the model and has all files of the server with their content.
// It also fails if refs/main does not name the commit, or if the cache contains more or fewer blobs than files.
func check(t *testing.T, h *hubtest.Hub, cache, folder string) {
	t.Helper()
	if want := filepath.Join(cache, "models--org--model", "snapshots", commit); folder != want {
		t.Errorf("the snapshot is %s, want %s", folder, want)
	}
	for name, want := range h.Files {
		if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(got) != string(want) {
			t.Errorf("%s has %d bytes that differ (error %v)", name, len(got), err)
		}
	}
	ref, err := os.ReadFile(filepath.Join(cache, "models--org--model", "refs", "main"))
	if err != nil || string(ref) != commit {
		t.Errorf("refs/main holds %q (error %v)", ref, err)
	}
	blobs, err := os.ReadDir(filepath.Join(cache, "models--org--model", "blobs"))
	if err != nil || len(blobs) != len(h.Files) {
		t.Errorf("the cache has %d blobs, want %d: %v (error %v)", len(blobs), len(h.Files), blobs, err)
	}
}

func TestPull(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	c := clientOf(h, cache)
	seen := map[string]int64{}
	c.Progress = func(file string, done, size int64) {
		if done < seen[file] || done > size || size != int64(len(h.Files[file])) {
			t.Errorf("progress of %s: %d after %d, of %d bytes", file, done, seen[file], size)
		}
		seen[file] = done
	}
	folder, err := c.Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, cache, folder)
	for file, done := range seen {
		if done != int64(len(h.Files[file])) {
			t.Errorf("the progress of %s ends at %d", file, done)
		}
	}
	if target, err := os.Readlink(filepath.Join(folder, "folder", "vocab.txt")); err != nil || !strings.HasPrefix(target, "../../../blobs/") {
		t.Errorf("a file of the snapshot leads to %q (error %v)", target, err)
	}

	h.Set(func() {})
	if _, err := c.Pull(t.Context(), model, "main", all); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(h.Requests[1:], func(r string) bool { return !strings.HasPrefix(r, "HEAD ") }) {
		t.Errorf("a model that is complete takes the requests %q", h.Requests)
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
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", func([]string) ([]string, error) { return []string{"config.json"}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 1 || slices.ContainsFunc(h.Requests, func(r string) bool { return strings.Contains(r, "model.safetensors") }) {
		t.Errorf("the snapshot has %v after the requests %q", entries, h.Requests)
	}
	refused := errors.New("nothing to choose")
	if _, err := clientOf(h, cache).Pull(t.Context(), model, "", func([]string) ([]string, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
}

// TestResume checks that a call of Pull continues the download of a file where the connection was cut in an earlier
// call. From a server without support for ranges it must fetch the whole file again.
func TestResume(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprint("ranges ", ranges), func(t *testing.T) {
			h, cache := newHub(t), t.TempDir()
			h.Set(func() { h.Ranges, h.Cut = ranges, []int{100_000, 0, 0, 0} })
			c := clientOf(h, cache)
			c.attempts = 2
			if _, err := c.Pull(t.Context(), model, "", all); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "model.safetensors") {
				t.Fatalf("after the cuts the error is %v", err)
			}
			if _, err := os.Stat(filepath.Join(cache, "models--org--model", "refs", "main")); err == nil {
				t.Error("an incomplete snapshot has a reference")
			}
			h.Set(func() {})
			folder, err := c.Pull(t.Context(), model, "", all)
			if err != nil {
				t.Fatal(err)
			}
			check(t, h, cache, folder)
			from := "bytes=100000-"
			if !ranges {
				from = ""
			}
			if !slices.Contains(h.Requests, "store GET "+from) {
				t.Errorf("no request continues with %s: %q", from, h.Requests)
			}
		})
	}
}

// TestPartOfAnotherLength checks that Pull downloads a file from the beginning if the cache has an incomplete download
// of it and the server refuses to send the rest of the file.
func TestPartOfAnotherLength(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.Set(func() { h.Unsatisfiable = true })
	etag := fmt.Sprintf("%x", sha256.Sum256(h.Files["model.safetensors"]))
	part := filepath.Join(cache, "models--org--model", "blobs", etag+".incomplete")
	if err := os.MkdirAll(filepath.Dir(part), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, make([]byte, 1000), 0o666); err != nil {
		t.Fatal(err)
	}
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, cache, folder)
}

// TestListIsCut checks that Pull repeats the request if the connection ends within the list of the model's files.
func TestListIsCut(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.Set(func() { h.CutList = 2 })
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, cache, folder)
}

// TestManyCuts checks that a download continues after any number of interruptions, as long as each attempt adds bytes
// to the file.
func TestManyCuts(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.Set(func() { h.Cut = slices.Repeat([]int{20_000}, 14) })
	c := clientOf(h, cache)
	c.attempts = 2
	folder, err := c.Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, cache, folder)
}

// TestDamage checks that Pull returns ErrDamaged for a file whose content does not have the announced digest, and that
// the next call succeeds.
func TestDamage(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.Set(func() { h.Garbage = true })
	if _, err := clientOf(h, cache).Pull(t.Context(), model, "", all); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "model.safetensors") {
		t.Fatalf("error %v", err)
	}
	h.Set(func() { h.Garbage = false })
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, cache, folder)
}

// TestDamagedCache checks that Pull fetches the files again that were damaged or removed in the cache, and no others.
func TestDamagedCache(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(folder, "model.safetensors")
	blob, err := filepath.EvalSymlinks(weights)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(h.Files["model.safetensors"])
	flipped[0] ^= 1
	for name, damage := range map[string]func() error{
		"cut":          func() error { return os.Truncate(blob, 1000) },
		"flipped":      func() error { return os.WriteFile(blob, flipped, 0o666) },
		"blob removed": func() error { return os.Remove(blob) },
		"link removed": func() error { return os.Remove(weights) },
		"a copy that is damaged": func() error {
			return errors.Join(os.Remove(weights), os.WriteFile(weights, flipped, 0o666))
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		h.Set(func() {})
		if _, err := clientOf(h, cache).Pull(t.Context(), model, "", all); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(t, h, cache, folder)
		if slices.ContainsFunc(h.Requests, func(r string) bool {
			return strings.Contains(r, "GET /org/model/resolve") && !strings.Contains(r, "safetensors")
		}) {
			t.Errorf("%s: files that are not damaged are fetched again: %q", name, h.Requests)
		}
	}
}

// TestUndownloadable checks that a file of the cache stays if another one cannot be downloaded in its place, and that
// several calls of Pull repair a cache at the same time.
func TestUndownloadable(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	h.Set(func() { h.Etag = `"` + strings.Repeat("0", 40) + `"` }) // a digest, but not of these files
	if _, err := clientOf(h, cache).Pull(t.Context(), model, "", all); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
	h.Set(func() { h.Etag = "" })
	check(t, h, cache, folder)
	for range 20 {
		if err := os.Truncate(filepath.Join(folder, "model.safetensors"), 1000); err != nil {
			t.Fatal(err)
		}
		var pulls sync.WaitGroup
		for range 3 {
			pulls.Go(func() {
				if _, err := clientOf(h, cache).Pull(t.Context(), model, "", all); err != nil {
					t.Error(err)
				}
			})
		}
		pulls.Wait()
		check(t, h, cache, folder)
	}
}

// TestEtagsWithoutDigest checks a hub that gives all files the same etag, which is no digest. A web page in place of a
// file must be an error.
func TestEtagsWithoutDigest(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.Set(func() { h.Etag = `W/"1-abc"` })
	folder, err := clientOf(h, cache).Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range h.Files {
		if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d: %v", name, len(got), len(want), err)
		}
	}
	h.Set(func() { h.Etag, h.Page = "", true })
	if _, err := clientOf(h, t.TempDir()).Pull(t.Context(), model, "", all); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "web page") {
		t.Errorf("web pages in place of files: %v", err)
	}
}

// roundTrip is a transport for tests.
type roundTrip func(r *http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// TestTokenStaysEncrypted checks that the token is not sent to http after a redirection from https, on the same host.
func TestTokenStaysEncrypted(t *testing.T) {
	defer func(usual http.RoundTripper) { transport = usual }(transport)
	tokens := map[string]string{}
	transport = roundTrip(func(r *http.Request) *http.Response {
		tokens[r.URL.Scheme] = r.Header.Get("Authorization")
		answer := &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Body: http.NoBody, Request: r}
		if r.URL.Scheme == "https" {
			answer.StatusCode = http.StatusTemporaryRedirect
			answer.Header.Set("Location", "http://hub.test"+r.URL.Path)
		}
		return answer
	})
	c := &Client{Endpoint: "https://hub.test", Token: "secret", Cache: t.TempDir(), attempts: 1}
	if _, err := c.Pull(t.Context(), model, "", all); err == nil || tokens["https"] != "Bearer secret" {
		t.Errorf("error %v, tokens %q", err, tokens)
	}
	if token, asked := tokens["http"]; !asked || token != "" {
		t.Errorf("the token goes to http: %q", tokens)
	}
}

// TestStoreRefuses checks that the error about a server to which the hub redirects names this server, and not the
// token.
func TestStoreRefuses(t *testing.T) {
	h := newHub(t)
	h.Set(func() { h.StoreStatus = http.StatusForbidden })
	_, err := clientOf(h, t.TempDir()).Pull(t.Context(), model, "", all)
	if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "to which") {
		t.Errorf("error %v", err)
	}
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
		{"a token is needed", func(*Client) { h.Token = "secret" }, model, ErrDenied, "HF_TOKEN"},
		{"another token is needed", func(c *Client) { h.Token, c.Token = "secret", "wrong" }, model, ErrDenied, "does not accept the token"},
		{"busy for too long", func(*Client) { h.Busy = 100 }, model, ErrUnreachable, "503"},
		{"no hub", func(*Client) { h.Status = http.StatusTeapot }, model, ErrUnreachable, "418"},
		{"nobody there", func(c *Client) { c.Endpoint = "http://127.0.0.1:1" }, model, ErrUnreachable, "127.0.0.1:1"},
		{"no id", nil, "../../etc", nil, "ORG/NAME"},
	} {
		t.Run(c.what, func(t *testing.T) {
			client := clientOf(h, t.TempDir())
			h.Set(func() {
				h.Token, h.Busy, h.Status = "", 0, 0
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
	h.Set(func() { h.Token, h.Busy, h.Status = "secret", 2, 0 })
	client := clientOf(h, t.TempDir())
	client.Token = "secret"
	if _, err := client.Pull(t.Context(), model, "", all); err != nil {
		t.Errorf("with the token, after two answers 503: %v", err)
	}
	if h.Auth != "" {
		t.Errorf("the other server is given %q", h.Auth)
	}
	if _, err := client.Pull(t.Context(), model, "../main", all); err == nil {
		t.Error("a revision outside the cache is accepted")
	}
}

// TestHostileNames checks that Pull refuses a model with a file name that leads out of the cache, and writes no file.
func TestHostileNames(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	h.Set(func() { h.Files["../../../../outside"] = []byte("x") })
	if _, err := clientOf(h, filepath.Join(cache, "a", "b")).Pull(t.Context(), model, "", all); err == nil {
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

// TestTogether checks that several clients can pull the same model at the same time, and that they download its large
// file only once in all.
func TestTogether(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := clientOf(h, cache).Pull(t.Context(), model, "", all); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	check(t, h, cache, filepath.Join(cache, "models--org--model", "snapshots", commit))
	stored := 0
	for _, r := range h.Requests {
		if strings.HasPrefix(r, "store GET") {
			stored++
		}
	}
	if stored != 1 {
		t.Errorf("the large file is fetched %d times", stored)
	}
}

// TestCancelled checks that Pull returns if its context ends while Pull waits for the lock of a file.
func TestCancelled(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	etag := fmt.Sprintf("%x", sha256.Sum256(h.Files["model.safetensors"]))
	unlock, err := lock(t.Context(), filepath.Join(cache, ".locks", "models--org--model", etag+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := clientOf(h, cache).Pull(ctx, model, "", all); !errors.Is(err, context.DeadlineExceeded) {
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
	if err != nil || c.Endpoint != "https://huggingface.co" || c.Token != "from a file" || c.Cache != filepath.Join(home, "hub") || Offline() != "" {
		t.Errorf("%+v, error %v", c, err)
	}
	t.Setenv("HF_HUB_CACHE", filepath.Join(t.TempDir(), "elsewhere"))
	if c, err = FromEnvironment(); err != nil || c.Token != "from a file" {
		t.Errorf("with a cache elsewhere the token is %q, error %v", c.Token, err)
	}
	t.Setenv("HF_HUB_CACHE", "")
	t.Setenv("HF_TOKEN", "given")
	t.Setenv("HF_ENDPOINT", "https://mirror.example/")
	t.Setenv("HF_HUB_OFFLINE", "1")
	if c, err = FromEnvironment(); err != nil || c.Endpoint != "https://mirror.example" || c.Token != "given" || Offline() != "HF_HUB_OFFLINE" {
		t.Errorf("%+v, error %v", c, err)
	}
	t.Setenv("HF_ENDPOINT", "mirror")
	if _, err = FromEnvironment(); err == nil || !strings.Contains(err.Error(), "HF_ENDPOINT") {
		t.Errorf("error %v", err)
	}
}

// TestFullDisk checks that a download returns an error if the disk is full, and that this error does not wrap
// ErrUnreachable.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	defer full.Close()
	h := newHub(t)
	p := &pull{Client: clientOf(h, t.TempDir()), id: model, commit: commit}
	err = p.rest(t.Context(), "model.safetensors", full, 300_000)
	if err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}

// TestVerifyingEndsWithItsContext checks that an interruption ends the comparison of a download with its digest, and
// that the download is kept and complete for the next attempt.
func TestVerifyingEndsWithItsContext(t *testing.T) {
	h, cache := newHub(t), t.TempDir()
	c := clientOf(h, cache)
	content := h.Files["model.safetensors"] // downloaded completely by an earlier run, but not verified
	part := filepath.Join(cache, "models--org--model", "blobs", fmt.Sprintf("%x.incomplete", sha256.Sum256(content)))
	if err := errors.Join(os.MkdirAll(filepath.Dir(part), 0o777), os.WriteFile(part, content, 0o666)); err != nil {
		t.Fatal(err)
	}
	interrupted := errors.New("interrupted")
	ctx, end := context.WithCancelCause(t.Context())
	c.Progress = func(file string, done, size int64) {
		if done == size && file == "model.safetensors" {
			end(interrupted)
		}
	}
	if _, err := c.Pull(ctx, model, "", all); !errors.Is(err, interrupted) {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(part); err != nil || string(got) != string(content) {
		t.Errorf("%d bytes are left (error %v)", len(got), err)
	}
	c.Progress = nil
	h.Set(func() {})
	folder, err := c.Pull(t.Context(), model, "", all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, h, cache, folder)
	if slices.ContainsFunc(h.Requests, func(r string) bool { return strings.HasPrefix(r, "GET") && strings.Contains(r, "model.safetensors") }) {
		t.Errorf("the download was not kept: %q", h.Requests)
	}
}
