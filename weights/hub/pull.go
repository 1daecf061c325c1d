package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Client downloads models from a hub into a cache. Its fields must not change while Pull runs.
type Client struct {
	Endpoint string // address of the hub, without a slash at the end
	Token    string // access token of an account, or "" for none
	Cache    string // folder of the cache, as the function Cache returns it
	// Progress, if not nil, is called with the size of a file and the number of its bytes that have been downloaded: at
	// the beginning of each attempt to download the file and then after each piece of at most 1 MiB. It is not called
	// for files that were in the cache before.
	Progress func(file string, done, size int64)

	tokenFrom string // variable or file from which the token comes, for messages

	attempts int           // a request fails after this number of attempts without progress; 0 stands for 5
	pause    time.Duration // pause before the second attempt, doubled before each further one; 0 stands for 1 s
}

// FromEnvironment returns a client that is configured as Hugging Face's libraries are: by the environment variables
// HF_ENDPOINT, HF_TOKEN, HUGGING_FACE_HUB_TOKEN and HF_TOKEN_PATH, by the variables that Cache reads, and by the token
// file of an earlier login.
func FromEnvironment() (*Client, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	c := &Client{Endpoint: "https://huggingface.co", Cache: cache}
	if endpoint := os.Getenv("HF_ENDPOINT"); endpoint != "" {
		c.Endpoint = strings.TrimRight(endpoint, "/")
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("HF_ENDPOINT: %q is no address such as https://huggingface.co", os.Getenv("HF_ENDPOINT"))
	}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if c.Token == "" {
			c.Token, c.tokenFrom = strings.TrimSpace(os.Getenv(name)), name
		}
	}
	if c.Token == "" {
		path := os.Getenv("HF_TOKEN_PATH")
		if path == "" {
			home, _ := hfHome()
			path = filepath.Join(home, "token")
		}
		text, err := os.ReadFile(path) // a missing or unreadable file means that there is no token
		if err == nil {
			c.Token, c.tokenFrom = strings.TrimSpace(string(text)), path
		}
	}
	if strings.ContainsFunc(c.Token, unicode.IsControl) {
		return nil, fmt.Errorf("the token of %s has a line end or another control character", c.tokenFrom)
	}
	return c, nil
}

// Address returns the address of the hub for messages, without a password.
func (c *Client) Address() string {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return "the hub"
	}
	return u.Redacted()
}

// Offline returns the variable that forbids the network, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, or "" if none does.
func Offline() string {
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		switch strings.ToUpper(os.Getenv(name)) {
		case "1", "TRUE", "YES", "ON":
			return name
		}
	}
	return ""
}

// The errors of Pull wrap one of these errors if the hub has caused them. Any other error comes from the file system,
// from the context, from the caller's function choose, or from an id or revision that is not a valid name.
var (
	// ErrNotFound means that the hub has no such model, revision or file, or does not show it to this user.
	ErrNotFound = errors.New("not found on the hub")
	// ErrDenied means that the hub requires a token, or does not accept the given one.
	ErrDenied = errors.New("the hub denies access")
	// ErrUnreachable means that the hub did not answer, answered with an HTTP error other than those of ErrNotFound and
	// ErrDenied, or does not speak the hub's protocol.
	ErrUnreachable = errors.New("the hub cannot be reached")
	// ErrDamaged means that the downloaded bytes do not have the size or digest that the hub has announced.
	ErrDamaged = errors.New("the download is damaged")
)

// Pull makes sure that the cache contains some files of a model, and returns the folder of the snapshot. revision is a
// branch, a tag or a commit; "" means main. The function choose gets the names of all files, with slashes as
// separators, and returns those of the files to download. They appear in the snapshot in the order that choose returns.
// If other programs take a snapshot for complete as soon as it has a certain file, this file must be the last one.
//
// A file that is complete in the cache is not downloaded again, unless it does not have the size or the digest that the
// hub announces. An interrupted download is continued. Several processes may pull the same model at the same time. Even
// if Pull returns an error, a file has its final name only if it is complete.
func (c *Client) Pull(ctx context.Context, id, revision string, choose func(files []string) ([]string, error)) (folder string, err error) {
	if !IsID(id) {
		return "", fmt.Errorf("%q is no model of the form ORG/NAME", id)
	}
	if revision == "" {
		revision = "main"
	}
	if !filepath.IsLocal(filepath.FromSlash(revision)) {
		return "", fmt.Errorf("model %s: %q is no revision", id, revision)
	}
	m := &pull{Client: c, id: id, folder: modelFolder(c.Cache, id)}
	files, err := m.list(ctx, revision)
	if err == nil {
		files, err = choose(files)
	}
	for _, file := range files {
		if err == nil {
			err = m.get(ctx, file)
		}
	}
	if ref := filepath.Join(m.folder, "refs", filepath.FromSlash(revision)); err == nil && revision != m.commit {
		if had, _ := os.ReadFile(ref); string(had) != m.commit { // the cache may be read-only
			err = writeWhole(ref, m.commit)
		}
	}
	if err != nil {
		return "", fmt.Errorf("model %s: %w", id, err)
	}
	return filepath.Join(m.folder, "snapshots", m.commit), nil
}

// pull is the state that the steps of one call of Client.Pull share.
type pull struct {
	*Client
	id, commit string
	folder     string // folder of the model in the cache
}

// listLimit is the maximum number of bytes in the hub's answer that lists a model's files.
const listLimit = 32 << 20

// list asks the hub for the commit of a revision and the names of its files.
func (p *pull) list(ctx context.Context, revision string) (files []string, err error) {
	var answer struct {
		SHA      string
		Siblings []struct{ RFilename string }
	}
	err = p.retry(ctx, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, stalled, fmt.Errorf("no complete answer within %v", stalled))
		defer cancel()
		r, err := p.request(ctx, http.MethodGet, "/api/models/"+p.id+"/revision/"+url.PathEscape(revision), 0)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if err := p.refused(r, "revision "+revision); err != nil {
			return err
		}
		text, err := io.ReadAll(io.LimitReader(r.Body, listLimit))
		if err != nil {
			return unreachable(ctx, err)
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return fmt.Errorf("%w: %s does not answer as a hub: %w", ErrUnreachable, p.Address(), err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if p.commit = answer.SHA; !commitPattern.MatchString(p.commit) {
		return nil, fmt.Errorf("%w: %s names the commit %.60q for %s", ErrUnreachable, p.Address(), p.commit, revision)
	}
	for _, s := range answer.Siblings {
		if !filepath.IsLocal(filepath.FromSlash(s.RFilename)) {
			return nil, fmt.Errorf("%w: %s lists the file %.60q", ErrUnreachable, p.Address(), s.RFilename)
		}
		files = append(files, s.RFilename)
	}
	return files, nil
}

// etagPattern matches the etags that are accepted as names of files in the folder blobs of a cache. An etag of 64
// hexadecimal digits is a SHA-256. An etag of 40 hexadecimal digits is the SHA-1 of a git object.
var etagPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// get makes sure that the snapshot contains a file. If the snapshot lacks the file, or the file is damaged, get puts a
// link to a blob into the snapshot. The blob is a file in the folder blobs (see blobName). get downloads the blob
// unless it is there and not damaged. What is in the cache is replaced only when the download is complete.
func (p *pull) get(ctx context.Context, file string) error {
	link := filepath.Join(p.folder, "snapshots", p.commit, filepath.FromSlash(file))
	etag, size, err := p.describe(ctx, file)
	if err != nil {
		return err
	}
	if bad, err := p.isBad(ctx, link, etag, size); err != nil || !bad {
		return err
	}
	blob := filepath.Join(p.folder, "blobs", blobName(etag, file))
	for _, folder := range []string{filepath.Dir(blob), filepath.Dir(link)} {
		if err := os.MkdirAll(folder, 0o777); err != nil {
			return err
		}
	}
	unlock, err := lock(ctx, filepath.Join(p.Cache, ".locks", filepath.Base(p.folder), filepath.Base(blob)+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	bad, err := p.isBad(ctx, blob, etag, size)
	if err == nil && bad {
		err = p.fetch(ctx, file, blob, etag, size)
	}
	if err != nil {
		return err
	}
	if sameFile(link, blob) { // a link to the blob is good again
		return nil
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return place(ctx, blob, link)
}

// sameFile reports whether two paths lead to the same file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// isBad reports whether a file is missing or damaged.
func (p *pull) isBad(ctx context.Context, path, etag string, size int64) (bool, error) {
	err := verify(ctx, path, etag, size)
	if errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// fetch downloads a file to the path blob.
func (p *pull) fetch(ctx context.Context, file, blob, etag string, size int64) error {
	part := blob + ".incomplete"
	if err := p.download(ctx, file, part, size); err != nil {
		return err
	}
	err := verify(ctx, part, etag, size)
	if errors.Is(err, ErrDamaged) { // remove the part, because a download must not be continued after damaged bytes
		err = errors.Join(fmt.Errorf("%s: %w; run again", file, err), os.Remove(part))
	}
	if err != nil {
		return err
	}
	return os.Rename(part, blob)
}

// blobName returns the name of the blob of a file. It is the etag, as in Hugging Face's libraries, if the etag is a
// digest. Other hubs may give the same etag to several files, so the name then also has a digest of the file's name.
func blobName(etag, file string) string {
	if digestOf(etag, 0) != nil {
		return etag
	}
	sum := sha256.Sum256([]byte(file))
	return etag + "-" + hex.EncodeToString(sum[:8])
}

// describe asks the hub for the digest and the size of a file. For a large file, the hub redirects the request to
// another server, which knows neither the digest nor the size. So describe does not follow redirections to another
// server.
func (p *pull) describe(ctx context.Context, file string) (etag string, size int64, err error) {
	err = p.retry(ctx, func() error {
		r, err := p.request(ctx, http.MethodHead, p.path(file), 0)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode < 300 || r.StatusCode > 399 {
			if err := p.refused(r, file); err != nil {
				return err
			}
		}
		etag, size = r.Header.Get("X-Linked-Etag"), r.ContentLength
		if etag == "" {
			etag = r.Header.Get("Etag")
		}
		if linked := r.Header.Get("X-Linked-Size"); linked != "" {
			if size, err = strconv.ParseInt(linked, 10, 64); err != nil {
				size = -1
			}
		}
		etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
		if digest := strings.ToLower(etag); digestOf(digest, 0) != nil {
			etag = digest
		}
		if !etagPattern.MatchString(etag) || size < 0 {
			return fmt.Errorf("%w: %s gives %s no digest and no size", ErrUnreachable, p.Address(), file)
		}
		return nil
	})
	return etag, size, err
}

func (p *pull) path(file string) string {
	escaped := (&url.URL{Path: file}).EscapedPath()
	return "/" + p.id + "/resolve/" + p.commit + "/" + escaped
}

// download downloads a file to the path part, or continues the incomplete download at this path. The argument size is
// the size of the complete file in bytes.
func (p *pull) download(ctx context.Context, file, part string, size int64) error {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	err = p.retry(ctx, func() error { return p.rest(ctx, file, f, size) })
	return errors.Join(err, f.Close())
}

// stalled is the time after which a download that gets no bytes is interrupted. It is also the time limit for the
// answer that lists a model's files.
const stalled = time.Minute

// rest is one attempt to download the bytes that f lacks, and to append them to f. If the server cannot send a part of
// a file, rest downloads the whole file again.
func (p *pull) rest(ctx context.Context, file string, f *os.File, size int64) error {
	done, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if done > size {
		done = 0
	}
	p.report(file, done, size)
	if done == size {
		return f.Truncate(size)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stalled, func() { cancel(fmt.Errorf("no byte within %v", stalled)) })
	defer watch.Stop()
	r, err := p.request(ctx, http.MethodGet, p.path(file), done)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode == http.StatusRequestedRangeNotSatisfiable { // the next attempt downloads the whole file
		err := &temporary{error: fmt.Errorf("%w: %s answers %s for %s", ErrUnreachable, p.Address(), r.Status, file)}
		return errors.Join(err, f.Truncate(0))
	}
	if err := p.refused(r, file); err != nil {
		return err
	}
	if r.StatusCode != http.StatusPartialContent {
		done = 0 // the server sends the whole file
	}
	if err := f.Truncate(done); err != nil {
		return err
	}
	if _, err := f.Seek(done, io.SeekStart); err != nil {
		return err
	}
	piece := make([]byte, 1<<20)
	for {
		n, err := r.Body.Read(piece)
		watch.Reset(stalled)
		if _, err := f.Write(piece[:n]); err != nil {
			return err
		}
		done += int64(n)
		p.report(file, done, size)
		switch {
		case done > size:
			return fmt.Errorf("%w: %s has more than the %d bytes announced", ErrDamaged, file, size)
		case err == io.EOF && done == size:
			return nil
		case err != nil:
			err = fmt.Errorf("%s: connection lost after %d of %d bytes: %w", file, done, size, err)
			return &temporary{error: unreachable(ctx, err), reached: done}
		}
	}
}

func (c *Client) report(file string, done, size int64) {
	if c.Progress != nil {
		c.Progress(file, done, size)
	}
}
