package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

const (
	feedPath       = "/v1/revocations"
	clockPath      = "/v1/revocations/clock"
	jwksPath       = "/.well-known/jwks.json"
	discoveryPath  = "/.well-known/oauth-authorization-server"
	introspectPath = "/oauth2/introspect"

	// keyAgeHeader says how long ago the authority said that the API key is
	// good, in seconds, so that a chain of relays believes it no longer than one.
	keyAgeHeader = "Counterfoil-Key-Age"
	vouchTimeout = 2 * time.Second
)

// upstream is the way to the addresses that may be followed. Requests are made
// for the first of them and go to the one that is followed at present.
type upstream struct {
	bases   []*url.URL
	streams *http.Transport // HTTP/1.1 and a connection each: a stream is not to wait for others
	calls   *http.Transport
	current atomic.Int64

	mu   sync.Mutex
	body io.Closer // of the present stream
}

func newUpstream(authorities []string, given *http.Transport) (*upstream, error) {
	u := &upstream{}
	for _, text := range authorities {
		base, err := url.Parse(strings.TrimRight(text, "/"))
		switch {
		case err != nil: // its text holds all of the address, maybe with a password
			return nil, &ConfigError{"Authorities", "holds one that is not a URL"}
		case base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "":
			return nil, &ConfigError{"Authorities", "holds one that is not an absolute http or https URL without user, query and fragment"}
		}
		u.bases = append(u.bases, base)
	}
	if given == nil {
		shared, ok := http.DefaultTransport.(*http.Transport)
		if !ok {
			shared = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
		}
		given = shared
	}
	u.calls = given.Clone()
	u.calls.MaxIdleConnsPerHost = maxForwards
	u.streams = given.Clone()
	u.streams.DisableKeepAlives = true
	u.streams.Protocols = new(http.Protocols)
	u.streams.Protocols.SetHTTP1(true)
	return u, nil
}

func (u *upstream) close() {
	u.calls.CloseIdleConnections()
	u.streams.CloseIdleConnections()
}

// where is the address that is followed.
func (u *upstream) where() string { return u.bases[u.current.Load()].String() }

// leave goes on to the address after i, unless somebody did already.
func (u *upstream) leave(i int64) bool {
	return len(u.bases) > 1 && u.current.CompareAndSwap(i, (i+1)%int64(len(u.bases)))
}

// moveOn ends the present stream, so that the next address is tried.
func (u *upstream) moveOn() bool {
	if !u.leave(u.current.Load()) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.body != nil {
		_ = u.body.Close() // it is over either way
		u.body = nil
	}
	return true
}

// RoundTrip sends a request that was made for the first address.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	path, ours := strings.CutPrefix(r.URL.Path, u.bases[0].Path)
	if !ours || r.URL.Host != u.bases[0].Host {
		return nil, fmt.Errorf("a request for %s, which is not followed", r.URL.Redacted())
	}
	if path == feedPath {
		return u.stream(r, path)
	}
	first, tries := u.current.Load(), int64(len(u.bases))
	if path == clockPath {
		tries = 1 // the clock of the node that the stream is from, or none
	}
	var res *http.Response
	var err error
	for n := range tries {
		if res != nil {
			_ = res.Body.Close() // another is asked
		}
		var again *http.Request
		if again, err = u.to(r, (first+n)%int64(len(u.bases)), path); err != nil {
			return nil, err
		}
		res, err = u.calls.RoundTrip(again)
		if r.Context().Err() != nil || err == nil && res.StatusCode < http.StatusInternalServerError {
			break
		}
	}
	return res, err
}

// at is a path below an address. JoinPath would take the slash from one
// without a path.
func at(base *url.URL, path string) *url.URL {
	u := *base
	u.Path, u.RawPath = base.Path+path, ""
	return &u
}

// to is the request for another address.
func (u *upstream) to(r *http.Request, i int64, path string) (*http.Request, error) {
	again := r.Clone(r.Context())
	again.URL = at(u.bases[i], path)
	again.Host = ""
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		again.Body = body
	}
	return again, nil
}

func (u *upstream) stream(r *http.Request, path string) (*http.Response, error) {
	i := u.current.Load()
	again, err := u.to(r, i, path)
	if err != nil {
		return nil, err
	}
	res, err := u.streams.RoundTrip(again)
	if err != nil || res.StatusCode != http.StatusOK {
		u.leave(i)
		return res, err
	}
	body := &streamBody{res.Body, u, i}
	u.mu.Lock()
	u.body = body
	u.mu.Unlock()
	res.Body = body
	return res, nil
}

// streamBody goes on to the next address when its stream breaks.
type streamBody struct {
	io.ReadCloser
	up *upstream
	of int64
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.up.leave(b.of)
	}
	return n, err
}

// vouch asks whether an API key is good for the feed, and how long ago the
// authority said so.
func (u *upstream) vouch(ctx context.Context, authorize func(*http.Request)) (age time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, vouchTimeout)
	defer cancel()
	// Not u.RoundTrip: any address may vouch.
	first := u.current.Load()
	for n := range int64(len(u.bases)) {
		age, err = u.vouchAt(ctx, u.bases[(first+n)%int64(len(u.bases))], authorize)
		if err == nil || errors.As(err, new(*verify.Error)) || ctx.Err() != nil {
			break
		}
	}
	return age, err
}

func (u *upstream) vouchAt(ctx context.Context, base *url.URL, authorize func(*http.Request)) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at(base, clockPath).String(), nil)
	if err != nil {
		return 0, err
	}
	authorize(req)
	res, err := u.calls.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return 0, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		s, err := strconv.ParseUint(res.Header.Get(keyAgeHeader), 10, 31)
		if err != nil {
			s = 0 // it is the authority that answers
		}
		return time.Duration(s) * time.Second, nil
	case http.StatusUnauthorized:
		return 0, verify.ErrTokenInvalid
	case http.StatusForbidden:
		return 0, &verify.Error{Status: http.StatusForbidden, Code: verify.CodeInsufficientScope, Scope: []string{"verify"}}
	}
	return 0, fmt.Errorf("%s answers with status %d", base.Redacted(), res.StatusCode)
}
