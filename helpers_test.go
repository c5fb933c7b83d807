package counterfoil_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/storetest/engine"
	"github.com/counterfoil/counterfoil/verify"
)

func newSeal() counterfoil.Seal {
	var secret [32]byte
	rand.Read(secret[:])
	return counterfoil.SealSecrets(secret[:])
}

func baseConfig() counterfoil.Config {
	return counterfoil.Config{
		Issuer: "https://app.example", Audiences: []string{"app", "orders"},
		Seal: newSeal(), Logger: slog.New(slog.DiscardHandler),
	}
}

// newStore is an empty store of the kind that this run is about.
func newStore(t testing.TB) engine.Store {
	t.Helper()
	return engine.Open(t, time.Now).Store(t)
}

// open makes an authority that is closed with the test. Inside a synctest
// bubble it lives on simulated time. On a store that the test brings it is one
// node. Without one the store is new, and has as many nodes as the run is
// about: the helpers below ask them in turn, methods of the authority the first.
func open(t *testing.T, store counterfoil.Store, change func(*counterfoil.Config)) *counterfoil.Authority {
	t.Helper()
	cfg := baseConfig()
	if change != nil {
		change(&cfg)
	}
	if store != nil {
		return node(t, store, cfg)
	}
	db := engine.Open(t, time.Now)
	var all []*counterfoil.Authority
	for range engine.Nodes() {
		store = db.Store(t)
		all = append(all, node(t, store, cfg))
	}
	cluster := &cluster{store, engine.InTurn(all...)}
	for _, a := range all {
		clusters.Store(a, cluster)
		t.Cleanup(func() { clusters.Delete(a) })
	}
	return all[0]
}

func node(t *testing.T, store counterfoil.Store, cfg counterfoil.Config) *counterfoil.Authority {
	t.Helper()
	a, err := counterfoil.New(t.Context(), store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// cluster is the nodes that open made together.
type cluster struct {
	store counterfoil.Store
	turns *engine.Turns[*counterfoil.Authority]
}

var clusters sync.Map // *counterfoil.Authority -> *cluster

// turn is the node whose turn it is among those that were opened with a, once
// each knows what the others did.
func turn(t testing.TB, a *counterfoil.Authority) *counterfoil.Authority {
	t.Helper()
	found, ok := clusters.Load(a)
	if !ok {
		return a
	}
	c := found.(*cluster)
	engine.Settle(t, c.store, c.turns.All()...)
	return c.turns.Next()
}

func authority(t *testing.T) *counterfoil.Authority { return open(t, nil, nil) }

func signIn(t *testing.T, a *counterfoil.Authority, subject string) *counterfoil.Grant {
	t.Helper()
	g, err := turn(t, a).StartSession(t.Context(), counterfoil.SignIn{Subject: subject, Methods: []string{"pwd"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func refresh(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant) *counterfoil.Grant {
	t.Helper()
	fresh, err := turn(t, a).Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// check verifies locally, as a protected route does.
func check(t *testing.T, a *counterfoil.Authority, token string, rules ...verify.Rule) (*verify.Claims, error) {
	t.Helper()
	v, err := turn(t, a).Verifier("")
	if err != nil {
		t.Fatal(err)
	}
	return v.Check(t.Context(), token, rules...)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func wantEnded(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant, want error, reason counterfoil.Reason) {
	t.Helper()
	_, err := turn(t, a).Refresh(context.Background(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	var ended *counterfoil.EndedError
	if !errors.As(err, &ended) || !errors.Is(err, want) || ended.Reason != reason {
		t.Errorf("refresh: got %v, want %v because of %q", err, want, reason)
	}
}

func sleepTo(t time.Time) { time.Sleep(time.Until(t)) }
