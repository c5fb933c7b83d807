// Package counterfoiltest gives tests an authority in one line: the real one,
// in memory, on a clock that the test moves, without any network.
//
//	auth := counterfoiltest.New(t)
//	grant := auth.SignIn("alice")
//	auth.Clock.Advance(2 * time.Minute) // the access token has expired
//
// To test a service that verifies remotely, give its verifier the HTTP client
// of the authority: verify.Config{Issuer: auth.Issuer(), HTTPClient: auth.Client()}.
package counterfoiltest

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/verify"
)

// Issuer is the issuer of every authority made here unless the test says otherwise.
const Issuer = "https://counterfoil.test"

// Authority is a real authority over a memory store, closed with its test.
type Authority struct {
	*counterfoil.Authority
	// Clock is the time of the authority, its store and its verifiers. It
	// stands still until the test moves it.
	Clock *Clock
	// Directory keeps users in the same store; its password hashes are cheap.
	Directory *directory.Directory
	// Logs is what the authority logged.
	Logs *Logs

	tb     testing.TB
	faults *faults
}

// New makes an authority with audience "app" at a clock that stands still.
// Each change may alter the configuration before it is used.
func New(tb testing.TB, changes ...func(*counterfoil.Config)) *Authority {
	tb.Helper()
	clock, logs := NewClock(), &Logs{}
	cfg := counterfoil.Config{
		Issuer: Issuer, Audiences: []string{"app"},
		Seal:  counterfoil.SealSecrets(bytes.Repeat([]byte{1}, 32)),
		Clock: clock.Now, Logger: slog.New(slog.NewTextHandler(logs, nil)),
	}
	for _, change := range changes {
		change(&cfg)
	}
	store := memstore.New(memstore.Clock(cfg.Clock))
	faults := &faults{}
	auth, err := counterfoil.New(tb.Context(), faultyStore{store, faults}, cfg)
	if err != nil {
		tb.Fatalf("counterfoiltest: %v", err)
	}
	tb.Cleanup(func() {
		if err := auth.Close(); err != nil {
			tb.Errorf("counterfoiltest: close: %v", err)
		}
	})
	dir, err := directory.New(auth, store.Users(), directory.Config{
		Hash: directory.Argon2id{Memory: 19 << 10, Time: 2, Parallelism: 1},
	})
	if err != nil {
		tb.Fatalf("counterfoiltest: %v", err)
	}
	return &Authority{Authority: auth, Clock: clock, Directory: dir, Logs: logs, tb: tb, faults: faults}
}

// Issuer is the issuer of the access tokens.
func (a *Authority) Issuer() string { return a.Config().Issuer }

// SignIn signs a subject in, with what the options add.
func (a *Authority) SignIn(subject string, options ...func(*counterfoil.SignIn)) *counterfoil.Grant {
	a.tb.Helper()
	in := counterfoil.SignIn{Subject: subject, Methods: []string{"pwd"}}
	for _, option := range options {
		option(&in)
	}
	grant, err := a.StartSession(a.tb.Context(), in)
	if err != nil {
		a.tb.Fatalf("counterfoiltest: sign in %s: %v", subject, err)
	}
	return grant
}

// Roles gives the session roles.
func Roles(roles ...string) func(*counterfoil.SignIn) {
	return func(in *counterfoil.SignIn) { in.Roles = roles }
}

// Scope gives the session scopes.
func Scope(scope ...string) func(*counterfoil.SignIn) {
	return func(in *counterfoil.SignIn) { in.Scope = scope }
}

// Audience chooses whom the access token is for.
func Audience(name string) func(*counterfoil.SignIn) {
	return func(in *counterfoil.SignIn) { in.Audience = name }
}

// Request makes a request that carries the grant's access token.
func (a *Authority) Request(method, target string, grant *counterfoil.Grant) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("Authorization", "Bearer "+grant.AccessToken)
	return r
}

// Verify is the verifier of the default audience.
func (a *Authority) Verify() *verify.Verifier {
	a.tb.Helper()
	v, err := a.Verifier("")
	if err != nil {
		a.tb.Fatalf("counterfoiltest: %v", err)
	}
	return v
}

// Handler is everything that the binary serves.
func (a *Authority) Handler() http.Handler {
	return httpapi.Handler(a.Authority, httpapi.WithDirectory(a.Directory))
}

// Client reaches the authority's handlers without a network, whatever the
// host of the request. Answers stream: a verifier follows the feed through it.
func (a *Authority) Client() *http.Client {
	handler := a.Handler()
	return &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		if err := errors.Join(r.Context().Err(), a.faults.check()); err != nil {
			return nil, err
		}
		return serve(handler, r), nil
	})}
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// Clock is a clock that a test moves. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at the present whole second.
func NewClock() *Clock { return &Clock{now: time.Now().UTC().Truncate(time.Second)} }

// Now tells the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock; back, when d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Logs collects log output. It is safe for concurrent use.
type Logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *Logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what was logged so far.
func (l *Logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
