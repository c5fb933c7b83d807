package simulation

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	issuer   = "https://app.example"
	audience = "orders"
	lifetime = 30 * time.Second // of access tokens
)

// node is one process of the authority. After a crash another one takes its
// place under the same name.
type node struct {
	w     *world
	name  string
	skew  atomic.Int64  // nanoseconds
	usual time.Duration // the skew in good times

	turn turn // held while the process is started or stopped

	mu        sync.Mutex
	run       int // how many processes there were
	store     *nodeStore
	auth      *counterfoil.Authority
	http      *http.Server
	up        bool
	skewSince time.Time // when the clock was set last
}

func (n *node) now() time.Time {
	return time.Now().Add(time.Duration(n.skew.Load()))
}

// turn is a lock that may be held for a while: in a bubble of synctest time
// goes on while somebody waits for it.
type turn chan struct{}

func (t turn) take() (done func()) {
	t <- struct{}{}
	return func() { <-t }
}

// process is the running one, or nil, and its number.
func (n *node) process() (*counterfoil.Authority, int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return nil, n.run
	}
	return n.auth, n.run
}

// faults changes what is between the process and the store.
func (n *node) faults(change func(*nodeStore)) {
	n.mu.Lock()
	store := n.store
	n.mu.Unlock()
	store.set(change)
}

func (n *node) setClock(skew time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.skew.Store(int64(skew))
	n.skewSince = time.Now()
}

// steadySince reports whether the clock has not been set since.
func (n *node) steadySince(t time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.skewSince.Before(t)
}

// start runs a new process. It fails when the store cannot be reached.
func (n *node) start(ctx context.Context) error {
	n.mu.Lock()
	n.run++
	store := newNodeStore(n.w.db, n, n.w.planted, n.w.seed*31+uint64(n.run)*7+uint64(n.name[1]))
	n.store = store
	n.mu.Unlock()
	auth, err := counterfoil.New(ctx, store, counterfoil.Config{
		Issuer: issuer, Audiences: []string{audience}, TokenLifetime: lifetime,
		Seal:      counterfoil.SealSecrets(bytes.Repeat([]byte{1}, 32)),
		Algorithm: "EdDSA", Degraded: n.w.degraded,
		Claims: func(_ context.Context, s counterfoil.Session) (counterfoil.Claims, error) {
			return counterfoil.Claims{Extra: map[string]any{"rv": n.w.app.rights(s.Subject)}}, nil
		},
		Clock: n.now, Logger: n.w.log,
	})
	if err != nil {
		return err
	}
	server := httpapi.Server(n.handler(auth))
	server.ErrorLog = log.New(discard{}, "", 0)
	l := n.w.net.listen(n.name)
	n.w.background.Go(func() { _ = server.Serve(l) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.auth, n.http, n.up = auth, server, true
	return nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (n *node) handler(auth *counterfoil.Authority) http.Handler {
	api := httpapi.Handler(auth, httpapi.WithLogger(n.w.log))
	mux := http.NewServeMux()
	mux.Handle("/", api)
	switch n.w.planted {
	case "an outage is told as an end":
		mux.Handle("POST /v1/auth/refresh", rewritten(api, func(rec *httptest.ResponseRecorder) {
			if rec.Code == http.StatusServiceUnavailable {
				rec.Code = http.StatusUnauthorized
				rec.Body = bytes.NewBufferString(`{"code":"session_unknown"}`)
			}
		}))
	case "a refusal clears the cookie":
		mux.Handle("POST /v1/auth/refresh", rewritten(api, func(rec *httptest.ResponseRecorder) {
			if rec.Code == http.StatusUnauthorized {
				auth.ClearCookies(rec, "")
			}
		}))
	}
	return mux
}

// rewritten changes the answers of a handler.
func rewritten(h http.Handler, change func(*httptest.ResponseRecorder)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		change(rec)
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// crash ends the process as kill -9 does: nothing it had in hand is written,
// nothing under way is answered.
func (n *node) crash() {
	defer n.turn.take()()
	n.faults(func(s *nodeStore) { s.dead = true })
	n.halt()
}

// stop ends the process.
func (n *node) stop() {
	defer n.turn.take()()
	n.halt()
}

func (n *node) halt() {
	n.mu.Lock()
	up, auth, server := n.up, n.auth, n.http
	n.up = false
	n.mu.Unlock()
	if !up {
		return
	}
	n.w.net.crash(n.name)
	_ = server.Close()
	_ = auth.Close()
}

// local is the verifier in the process itself.
func local(auth *counterfoil.Authority) *verify.Verifier {
	v, err := auth.Verifier("")
	if err != nil {
		panic(fmt.Sprintf("simulation: %v", err))
	}
	return v
}

// off is how far the node's clock is from the store's.
func (n *node) off() time.Duration {
	return time.Duration(n.skew.Load() - n.w.storeSkew.Load()).Abs()
}
