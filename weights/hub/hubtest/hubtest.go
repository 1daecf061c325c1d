// Package hubtest is a local server for tests. It speaks the protocol of the Hugging Face hub. Fields of Hub make the
// server refuse requests, send wrong bytes or end answers early.
package hubtest

import (
	"cmp"
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

// Hub is a server with one model. It redirects requests for large files to a second server, the store. A test changes
// the fields of a Hub by its method Set.
type Hub struct {
	*httptest.Server
	store *httptest.Server // server of large files
	model string

	mu            sync.Mutex
	Files         map[string][]byte
	Large         map[string]bool
	Requests      []string // requests since the last call of Set: "METHOD PATH", or "store METHOD RANGE"
	Token         string   // token that a client must send; "" means none
	Cut           []int    // for each of the next answers of the store, the number of bytes after which it ends
	Etag          string   // etag of all files; "" means the digest of each
	Page          bool     // whether the hub sends a web page in place of each file that is not large
	Garbage       bool     // whether the store sends zeros instead of the content
	Status        int      // HTTP status of all answers except those of the store; 0 means the usual status of each
	StoreStatus   int      // HTTP status of all answers of the store; 0 means the usual status of each
	Busy          int      // number of the next answers that have the status 503
	Unsatisfiable bool     // whether the store refuses every range
	CutList       int      // number of the next answers that end within the list of the files
	Ranges        bool     // whether the store supports requests for ranges
	Auth          string   // header Authorization of the last request to the store
}

// New starts a server with one model and its files. The name of the model has the form ORG/NAME. Requests for files of
// 100,000 bytes or more are redirected to the store. The server and the store stop at the end of the test.
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
		if h.CutList > 0 {
			h.CutList--
			w.Header().Set("Content-Length", "1000")
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
	if h.Page && !h.Large[name] {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Etag", `W/"login"`)
		_, _ = w.Write([]byte("<html>log in</html>"))
		return
	}
	if h.Large[name] {
		w.Header().Set("X-Linked-Etag", cmp.Or(h.Etag, fmt.Sprintf(`"%x"`, sha256.Sum256(content))))
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(content)))
		http.Redirect(w, r, h.store.URL+"/"+name, http.StatusFound)
		return
	}
	w.Header().Set("Etag", cmp.Or(h.Etag, fmt.Sprintf(`"%x"`, sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...)))))
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
	if h.StoreStatus != 0 {
		w.WriteHeader(h.StoreStatus)
		return
	}
	if h.Unsatisfiable && r.Header.Get("Range") != "" {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
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
	_, _ = w.Write(content[from:end]) // an error means that the client has gone
}

// Set calls the function change, which may set the fields of h, at a time when no request is served. It also empties
// Requests.
func (h *Hub) Set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Requests = nil
	change()
}
