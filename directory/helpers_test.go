package directory_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/storetest/engine"
)

const (
	goodPassword  = "a lamp, nine otters and rain"
	otherPassword = "two spoons beneath the glacier"
)

// cheap is the weakest hash that New takes; most tests are about other things.
var cheap = directory.Argon2id{Memory: 19 << 10, Time: 2, Parallelism: 1}

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// env is a directory over a real authority and a real store, with a clock of its
// own. The run says which store, and how many nodes there are: the helpers ask
// them in turn, the methods of the directory itself are the first's.
type env struct {
	*directory.Directory
	t     testing.TB
	auth  *counterfoil.Authority
	users directory.Store
	clock *clock
	log   *bytes.Buffer
	logs  *lockedWriter
	store counterfoil.Store
	hooks *hooks
	turns *engine.Turns[member]
}

// member is one node.
type member struct {
	*directory.Directory
	auth  *counterfoil.Authority
	users directory.Store
}

// setup makes an env whose hash is fast: the parameters are put in behind
// New, which takes none that weak.
func setup(t *testing.T, change func(*directory.Config)) *env {
	t.Helper()
	e := newEnv(t, change)
	e.HashFast()
	return e
}

func newEnv(t testing.TB, change func(*directory.Config)) *env {
	t.Helper()
	e := &env{t: t, clock: newClock(), log: &bytes.Buffer{}, hooks: &hooks{}}
	e.logs = &lockedWriter{w: e.log}
	db := engine.Open(t, e.clock.now)
	var all []member
	for range engine.Nodes() {
		store := db.Store(t)
		m := member{auth: authority(t, store, e.clock), users: &paused{store.Users(), e.hooks}}
		m.Directory = e.directory(m.auth, m.users, change)
		all = append(all, m)
		e.store = store
	}
	e.turns = engine.InTurn(all...)
	e.Directory, e.auth, e.users = all[0].Directory, all[0].auth, all[0].users
	return e
}

// turn is the node whose turn it is, once each knows what the others did.
func (e *env) turn() member {
	e.t.Helper()
	var nodes []*counterfoil.Authority
	for _, m := range e.turns.All() {
		nodes = append(nodes, m.auth)
	}
	engine.Settle(e.t, e.store, nodes...)
	return e.turns.Next()
}

// HashFast makes the hashes of every node cheap.
func (e *env) HashFast() {
	for _, m := range e.turns.All() {
		m.HashFast()
	}
}

// Hashes is how many all nodes computed.
func (e *env) Hashes() (n int64) {
	for _, m := range e.turns.All() {
		n += m.Directory.Hashes()
	}
	return n
}

// paused is the real store; at lets a test do something between two reads.
type paused struct {
	directory.Store
	*hooks
}

// hooks are the same for all nodes.
type hooks struct {
	at    func(point string)
	apart bool // the epoch is not read with the user
}

func (p *paused) point(name string) {
	if p.at != nil {
		p.at(name)
	}
}

func (p *paused) ByEmail(ctx context.Context, key string) (directory.User, error) {
	u, err := p.Store.ByEmail(ctx, key)
	if p.apart {
		u.Epoch = 0
	}
	p.point("after ByEmail")
	return u, err
}

func (p *paused) TakeCeremony(ctx context.Context, challenge string) (directory.Ceremony, error) {
	c, err := p.Store.TakeCeremony(ctx, challenge)
	p.point("after TakeCeremony")
	return c, err
}

func (p *paused) User(ctx context.Context, id string) (directory.User, error) {
	p.point("before User")
	u, err := p.Store.User(ctx, id)
	if p.apart {
		u.Epoch = 0
	}
	p.point("after User")
	return u, err
}

func authority(t testing.TB, store counterfoil.Store, c *clock) *counterfoil.Authority {
	t.Helper()
	auth, err := counterfoil.New(t.Context(), store, counterfoil.Config{
		Issuer: "https://app.example", Audiences: []string{"app"}, Clock: c.now,
		Seal: counterfoil.SealSecrets(bytes.Repeat([]byte{7}, 32)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = auth.Close() })
	return auth
}

// node is one more directory over the same store.
func (e *env) node(change func(*directory.Config)) *directory.Directory {
	e.t.Helper()
	return e.directory(e.auth, e.users, change)
}

func (e *env) directory(auth *counterfoil.Authority, users directory.Store, change func(*directory.Config)) *directory.Directory {
	e.t.Helper()
	cfg := directory.Config{Hash: cheap, Logger: slog.New(slog.NewTextHandler(e.logs, nil))}
	if change != nil {
		change(&cfg)
	}
	d, err := directory.New(auth, users, cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return d
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func from(ip string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "https://app.example/", nil)
	r.RemoteAddr = ip + ":4711"
	if bytes.ContainsRune([]byte(ip), ':') {
		r.RemoteAddr = "[" + ip + "]:4711"
	}
	return r
}

// user adds a user with goodPassword.
func (e *env) user(email string) directory.User {
	e.t.Helper()
	u, err := e.turn().Create(e.t.Context(), directory.NewUser{Email: email, Password: goodPassword})
	if err != nil {
		e.t.Fatal(err)
	}
	return u
}

func (e *env) try(email, password, ip string) error {
	_, err := e.turn().SignIn(e.t.Context(), directory.SignIn{Email: email, Password: password, Request: from(ip)})
	return err
}

func (e *env) grant(email, password, ip string) *counterfoil.Grant {
	e.t.Helper()
	g, err := e.turn().SignIn(e.t.Context(), directory.SignIn{Email: email, Password: password, Request: from(ip)})
	if err != nil {
		e.t.Fatalf("sign-in of %s from %s: %v", email, ip, err)
	}
	return g
}

// alive is the error of the session token of g.
func (e *env) alive(g *counterfoil.Grant) error {
	_, err := e.turn().auth.Authenticate(context.Background(), g.SessionToken.Reveal())
	return err
}

// inTurn are addresses of many networks, no two in one /24.
func inTurn(i int) string { return fmt.Sprintf("%d.%d.%d.9", 11+i>>16, i>>8&255, i&255) }
