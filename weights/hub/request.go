package hub

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// transport limits the time in which a hub must begin its answer. It sets no time limit for the body of an answer.
var transport = func() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 20 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 30 * time.Second
	return t
}()

// request sends a request for the path of the hub. If the argument from is greater than 0, the request asks for the
// content from this byte offset on. The token goes to the hub alone, and not to another server to which the hub
// redirects, nor from https to http. A HEAD request is not redirected to another server.
func (c *Client) request(ctx context.Context, method, path string, from int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.Endpoint+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "seqembed")
	r.Header.Set("Accept-Encoding", "identity") // so that sizes and byte ranges are those of the file as it is
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if from > 0 {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		elsewhere := next.URL.Host != via[0].URL.Host
		switch {
		case method == http.MethodHead && elsewhere:
			return http.ErrUseLastResponse
		case len(via) > 9:
			return errors.New("the hub redirects without end")
		case elsewhere || via[0].URL.Scheme == "https" && next.URL.Scheme != "https":
			next.Header.Del("Authorization")
		}
		return nil
	}}
	answer, err := client.Do(r)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	return answer, nil
}

// unreachable returns err as a temporary error that wraps ErrUnreachable. If ctx has ended, its cause, such as a
// timeout of this package, takes the place of err. A cause that is or wraps context.Canceled or
// context.DeadlineExceeded is returned as it is, because another attempt would be useless. So is an error about a
// certificate, which is not temporary either.
func unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
			return cause
		}
		err = cause
	}
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return fmt.Errorf("%w: %w; on Linux SSL_CERT_FILE names a file with the certificates to trust", ErrUnreachable, err)
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return &temporary{error: fmt.Errorf("%w: %w", ErrUnreachable, err)}
}

// temporary is an error after which another attempt may succeed.
type temporary struct {
	error
	after   time.Duration // pause that the hub asks for, or 0
	reached int64         // number of bytes of the file that were on disk when the attempt ended
}

func (t *temporary) Unwrap() error { return t.error }

// IsTemporary reports whether another call of Pull may succeed after the given error of Pull, and continue its
// downloads.
func IsTemporary(err error) bool { return errors.As(err, new(*temporary)) }

// refused returns the error for the HTTP status of an answer, or nil if the answer has the requested content. The
// argument what names the content in the message.
func (p *pull) refused(r *http.Response, what string) error {
	from, token := p.Address(), cmp.Or(p.tokenFrom, "the caller")
	page := from + "/" + p.id
	hub, err := url.Parse(p.Endpoint)
	elsewhere := err == nil && hub.Host != r.Request.URL.Host
	if elsewhere {
		from = r.Request.URL.Host + ", to which " + from + " redirects,"
	}
	switch {
	case r.StatusCode == http.StatusOK, r.StatusCode == http.StatusPartialContent:
		if kind := r.Header.Get("Content-Type"); strings.HasPrefix(kind, "text/html") {
			return fmt.Errorf("%w: %s answers with a web page for %s", ErrUnreachable, from, what)
		}
		return nil
	case elsewhere: // neither the token nor the name of the model is the cause
	case (r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden) && p.Token == "":
		// The hub gives the same answer for a model that does not exist.
		return fmt.Errorf("%w to %s (%s): the name may be wrong, or the model needs a token in HF_TOKEN", ErrDenied, page, r.Status)
	case r.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w to %s: it does not accept the token of %s (%s)", ErrDenied, page, token, r.Status)
	case r.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w to %s with the token of %s (%s): its account may have to accept the licence there",
			ErrDenied, page, token, r.Status)
	case r.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %s at %s", ErrNotFound, what, page)
	}
	err = fmt.Errorf("%w: %s answers %s for %s", ErrUnreachable, from, r.Status, what)
	if r.StatusCode == http.StatusTooManyRequests || r.StatusCode >= 500 {
		seconds, _ := strconv.Atoi(r.Header.Get("Retry-After"))
		return &temporary{error: err, after: min(time.Duration(seconds)*time.Second, 2*time.Minute)}
	}
	return err
}

// retry calls the function attempt until it succeeds, its error is not temporary, or c.attempts calls have failed. It
// pauses between calls, twice as long each time. The count and the pause start again after a failed download that has
// made progress: more bytes of the file are on disk than ever before.
func (c *Client) retry(ctx context.Context, attempt func() error) error {
	first, attempts := cmp.Or(c.pause, time.Second), cmp.Or(c.attempts, 5)
	left, pause, furthest := attempts, first, int64(0)
	for {
		err := attempt()
		var t *temporary
		if !errors.As(err, &t) {
			return err
		}
		if t.reached > furthest {
			left, pause, furthest = attempts, first, t.reached
		} else if left--; left == 0 {
			return err
		}
		select {
		case <-time.After(max(pause, t.after)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause *= 2
	}
}
