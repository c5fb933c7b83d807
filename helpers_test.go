package counterfoil_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
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

// open makes an authority that is closed with the test. Inside a synctest
// bubble it lives on simulated time.
func open(t *testing.T, store counterfoil.Store, change func(*counterfoil.Config)) *counterfoil.Authority {
	t.Helper()
	cfg := baseConfig()
	if change != nil {
		change(&cfg)
	}
	a, err := counterfoil.New(t.Context(), store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func memory(t *testing.T) *counterfoil.Authority { return open(t, memstore.New(), nil) }

func signIn(t *testing.T, a *counterfoil.Authority, subject string) *counterfoil.Grant {
	t.Helper()
	g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: subject, Methods: []string{"pwd"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func refresh(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant) *counterfoil.Grant {
	t.Helper()
	fresh, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// check verifies locally, as a protected route does.
func check(t *testing.T, a *counterfoil.Authority, token string, rules ...verify.Rule) (*verify.Claims, error) {
	t.Helper()
	v, err := a.Verifier("")
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
	_, err := a.Refresh(context.Background(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	var ended *counterfoil.EndedError
	if !errors.As(err, &ended) || !errors.Is(err, want) || ended.Reason != reason {
		t.Errorf("refresh: got %v, want %v because of %q", err, want, reason)
	}
}

func sleepTo(t time.Time) { time.Sleep(time.Until(t)) }
