package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/jwk"
)

// authority plays the other side of the wire.
type authority struct {
	mu         sync.Mutex
	version    int64
	keys       []*signingKey
	issuer     string
	lifetime   int64
	down       bool
	introspect http.HandlerFunc
	log        *feedLog
	replace    map[string]http.HandlerFunc // by path

	discoveries, fetches atomic.Int64
}

func newAuthority(keys ...*signingKey) *authority {
	a := &authority{version: 1, keys: keys, issuer: testIssuer, lifetime: 300}
	a.log = newFeedLog(func() int64 {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.version
	})
	return a
}

func (a *authority) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	down, other, introspect := a.down, a.replace[r.URL.Path], a.introspect
	a.mu.Unlock()
	switch {
	case down:
		w.WriteHeader(http.StatusBadGateway)
	case other != nil:
		if strings.HasSuffix(r.URL.Path, "jwks.json") {
			a.fetches.Add(1)
		}
		other(w, r)
	case r.Method == "GET" && r.URL.Path == "/.well-known/oauth-authorization-server":
		a.discoveries.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": a.issuer, "jwks_uri": "http://192.0.2.1/never/asked", "cf_max_token_lifetime": a.lifetime,
		})
	case r.Method == "GET" && r.URL.Path == "/.well-known/jwks.json":
		a.fetches.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		set := jwk.Set{Version: a.version}
		for _, k := range a.keys {
			set.Keys = append(set.Keys, k.public)
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Write(jwk.MarshalSet(set))
	case r.Method == "GET" && r.URL.Path == "/v1/revocations":
		a.log.server().ServeHTTP(w, r)
	case r.Method == "GET" && r.URL.Path == "/v1/revocations/clock":
		a.log.server().ServeClock(w, r)
	case r.Method == "POST" && r.URL.Path == "/oauth2/introspect" && introspect != nil:
		introspect(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (a *authority) serve(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, cfg Config) *Verifier {
	t.Helper()
	cfg.Issuer, cfg.Audience = testIssuer, testAudience
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	v, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func check(t *testing.T, v *Verifier, token string, want error, rules ...Rule) {
	t.Helper()
	if _, err := v.Check(t.Context(), token, rules...); !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("got %v, want %v", err, want)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// inside is a client whose requests reach the handler over a pipe, so that a
// bubble of synctest holds both ends.
func inside(h http.Handler) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // no connection outlives its request, and the bubble
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				s := &http.Server{Handler: h}
				_ = s.Serve(&oneConn{there})
			}()
			return here, nil
		},
	}}
}

// oneConn is a listener with one connection to give.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
