// Package hubtest is a local server that speaks the protocol of the Hugging Face hub, with faults, for tests.
package hubtest

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Commit is the commit of the model's branch main and of its tag v1.
const Commit = "0123456789abcdef0123456789abcdef01234567"

// Hub is a server with one model. Large files are on a second server, to which it redirects. Set changes its fields.
type Hub struct {
	*httptest.Server
	store *httptest.Server // of large files
	model string

	mu       sync.Mutex
	Files    map[string][]byte
	Large    map[string]bool
	Requests []string // since the last Set
	Token    string   // that a client needs, or ""
	Cut      []int    // numbers of bytes after which the next answers of the store end
	Garbage  bool     // the store sends another content
	Status   int      // of every answer, if not 0
	Busy     int      // so many answers are 503
	Ranges   bool     // the store honours ranges
	Auth     string   // the last Authorization that the store saw
}

// New starts a server with a model, ORG/NAME, whose files are large if they have 100,000 bytes. It stops with the test.
func New(t *testing.T, model string, files map[string][]byte) *Hub {
	h := &Hub{model: model, Files: files, Large: map[string]bool{}, Ranges: true}
	for name, content := range files {
		h.Large[name] = len(content) >= 100_000
	}
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	h.store = httptest.NewServer(http.HandlerFunc(h.serveLarge))
	t.Cleanup(h.Server.Close)
	t.Cleanup(h.store.Close)
	return h
}

func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Requests = append(h.Requests, r.Method+" "+r.URL.Path)
	switch {
	case h.Busy > 0:
		h.Busy--
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	case h.Status != 0:
		w.WriteHeader(h.Status)
		return
	case h.Token != "" && r.Header.Get("Authorization") != "Bearer "+h.Token:
		w.WriteHeader(http.StatusUnauthorized)
		return
	case r.URL.Path == "/api/models/"+h.model+"/revision/main", r.URL.Path == "/api/models/"+h.model+"/revision/v1":
		var siblings []string
		for _, name := range slices.Sorted(maps.Keys(h.Files)) {
			siblings = append(siblings, fmt.Sprintf(`{"rfilename": %q}`, name))
		}
		fmt.Fprintf(w, `{"id": %q, "sha": %q, "siblings": [%s]}`, h.model, Commit, strings.Join(siblings, ","))
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/"+h.model+"/resolve/"+Commit+"/")
	content, found := h.Files[name]
	if !ok || !found {
		http.NotFound(w, r)
		return
	}
	if h.Large[name] {
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

func (h *Hub) serveLarge(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Requests = append(h.Requests, "store "+r.Method+" "+r.Header.Get("Range"))
	h.Auth = r.Header.Get("Authorization")
	content := h.Files[strings.TrimPrefix(r.URL.Path, "/")]
	if h.Garbage {
		content = make([]byte, len(content))
	}
	from := 0
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && h.Ranges {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		from = 0
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	}
	end := len(content)
	if len(h.Cut) > 0 {
		end, h.Cut = min(end, from+h.Cut[0]), h.Cut[1:]
	}
	_, _ = w.Write(content[from:end]) // a client that has gone does not matter
}

// Set changes the server while nothing runs, and forgets the requests.
func (h *Hub) Set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Requests = nil
	change()
}
