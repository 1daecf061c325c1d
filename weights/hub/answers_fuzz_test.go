package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzAnswers calls Pull with a hub that gives any answers. A file whose name in the folder blobs of the cache is a
// SHA-256 must have this digest, and nothing must be written outside the folders of the model and of the locks.
func FuzzAnswers(f *testing.F) {
	listed := func(files string) string { return `{"sha":"` + commit + `","siblings":[` + files + `]}` }
	sum := sha256.Sum256([]byte("content"))
	digest := hex.EncodeToString(sum[:])
	for _, c := range []struct{ list, etag, size, content string }{
		{listed(`{"rfilename":"config.json"}`), `"` + digest + `"`, "7", "content"},
		{listed(`{"rfilename":"a/b.txt"},{"rfilename":"../../x"}`), digest, "7", "content"},
		{listed(`{"rfilename":"/etc/x"}`), digest, "8", "content"},
		{listed(`{"rfilename":"x"},{"rfilename":"x/y"}`), "W/\"abc\"", "7", "content"},
		{listed(`{"rfilename":""}`), "../x", "-1", ""},
		{listed(`{"rfilename":"config.json"}`), strings.Repeat("a", 40), "7", "content"},
		{listed(`{"rfilename":"config.json"}`), digest, "99999999999", "content"},
		{`{"sha":"../../x"}`, digest, "7", "content"}, {"<html>", "", "", ""}, {"", digest, "x", ""},
	} {
		f.Add(c.list, c.etag, c.size, c.content)
	}
	var list, etag, size, content string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/"):
			_, _ = w.Write([]byte(list))
		case r.Method == http.MethodHead:
			w.Header().Set("X-Linked-Etag", etag)
			w.Header().Set("X-Linked-Size", size)
		default:
			_, _ = w.Write([]byte(content))
		}
	}))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, aList, anEtag, aSize, aContent string) {
		list, etag, size, content = aList, anEtag, aSize, aContent
		root, began := t.TempDir(), time.Now()
		cache := filepath.Join(root, "cache")
		c := &Client{Endpoint: server.URL, Cache: cache, attempts: 1, pause: time.Millisecond}
		folder, err := c.Pull(t.Context(), model, "", all)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%d bytes take %v", len(list)+len(content), took)
		}
		if err == nil && folder != filepath.Join(cache, "models--org--model", "snapshots", commit) && !strings.Contains(list, filepath.Base(folder)) {
			t.Errorf("the snapshot is %s", folder)
		}
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(root, path)
			switch {
			case err != nil || rel == "." || rel == "cache":
			case !strings.HasPrefix(filepath.ToSlash(rel), "cache/models--org--model") && !strings.HasPrefix(filepath.ToSlash(rel), "cache/.locks"):
				t.Errorf("%q is outside the folder of the model", rel)
			case d.Type()&fs.ModeSymlink != 0:
				if target, err := filepath.EvalSymlinks(path); err != nil || filepath.Base(filepath.Dir(target)) != "blobs" {
					t.Errorf("%q leads to %q (error %v)", rel, target, err)
				}
			case d.Type().IsRegular() && filepath.Base(filepath.Dir(path)) == "blobs" && len(d.Name()) == 2*sha256.Size && !strings.HasSuffix(d.Name(), ".incomplete"):
				got, err := os.ReadFile(path)
				sum := sha256.Sum256(got)
				if err != nil || hex.EncodeToString(sum[:]) != d.Name() && isHex(d.Name()) {
					t.Errorf("%q has another digest (error %v)", rel, err)
				}
				if n, err := strconv.ParseInt(size, 10, 64); err == nil && n != int64(len(got)) && isHex(d.Name()) {
					t.Errorf("%q has %d bytes, and %d were announced", rel, len(got), n)
				}
			}
			return nil
		})
	})
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}
