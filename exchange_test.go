package counterfoil_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// gatedSessions holds snapshots back until they are released, and counts them.
type gatedSessions struct {
	counterfoil.SessionStore
	gate    *atomic.Bool
	release chan struct{}
	reads   *atomic.Int64
}

type gatedStore struct {
	counterfoil.Store
	sessions gatedSessions
}

func (s gatedStore) Sessions() counterfoil.SessionStore { return s.sessions }

func (s gatedSessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	if s.gate.Load() {
		s.reads.Add(1)
		<-s.release
	}
	return s.SessionStore.Snapshot(ctx, id)
}

func TestExchangeOfAccessTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, nil, func(c *counterfoil.Config) { c.MoreClientIDs = []string{"shop"} })
		defer a.Close()
		g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Audience: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		exchange := func(r counterfoil.ExchangeRequest) (*counterfoil.Grant, error) {
			return a.Exchange(t.Context(), g.AccessToken, r)
		}
		got, err := exchange(counterfoil.ExchangeRequest{ClientID: "default"})
		if err != nil || got.AccessToken != "" || got.Session.ID != g.Session.ID {
			t.Errorf("a young token: %+v, %v", got, err)
		}
		_, err = exchange(counterfoil.ExchangeRequest{ClientID: "shop"})
		wantErr(t, err, verify.ErrTokenInvalid)
		time.Sleep(31 * time.Second)
		got, err = exchange(counterfoil.ExchangeRequest{MaxTokenAge: 30 * time.Second})
		if err != nil || got.AccessToken == "" {
			t.Errorf("older than asked: %+v, %v", got, err)
		}
		time.Sleep(9*time.Minute + 20*time.Second)
		got, err = exchange(counterfoil.ExchangeRequest{})
		if err != nil || got.AccessToken == "" {
			t.Fatalf("expired: %v", err)
		}
		if c, err := a.AnyAudience().Check(t.Context(), got.AccessToken); err != nil || c.Audience != "orders" {
			t.Errorf("the fresh one is for %v, %v", c, err)
		}
		if _, err := a.AnyAudience().Check(t.Context(), g.AccessToken); !errors.Is(err, verify.ErrTokenExpired) {
			t.Errorf("elsewhere the expired one is %v", err)
		}
		time.Sleep(2 * time.Minute)
		_, err = exchange(counterfoil.ExchangeRequest{})
		wantErr(t, err, verify.ErrTokenExpired)
	})
}

func TestExchangeOfAStaleToken(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	if err := a.RightsChanged(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	got, err := a.Exchange(t.Context(), g.AccessToken, counterfoil.ExchangeRequest{})
	if err != nil || got.AccessToken == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestIntrospectAsksTheSource(t *testing.T) {
	store, seal := newStore(t), newSeal()
	use := func(c *counterfoil.Config) { c.Seal = seal }
	here, there := open(t, store, use), open(t, store, use)
	g := signIn(t, here, "alice")
	if _, err := there.Introspect(t.Context(), g.AccessToken); err != nil {
		t.Fatal(err)
	}
	// Revoked by another node: the live check knows, whatever this process was told.
	if err := here.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	_, err := there.Introspect(t.Context(), g.AccessToken)
	wantErr(t, err, verify.ErrTokenRevoked)
	h := signIn(t, here, "bob")
	if err := here.RightsChanged(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	_, err = there.Introspect(t.Context(), h.AccessToken)
	wantErr(t, err, verify.ErrTokenStale)
}

func TestAPIKeys(t *testing.T) { // SEC-114
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		a := open(t, store, nil)
		defer a.Close()
		secret, key, err := a.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{
			Name: "orders", Scopes: []string{counterfoil.ScopeVerify}, ExpiresAt: time.Now().Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.AuthenticateAPIKey(t.Context(), secret.Reveal())
		if err != nil || got.ID != key.ID || !slices.Equal(got.Scopes, []string{"verify"}) {
			t.Fatalf("%+v, %v", got, err)
		}
		other, _ := a.NewSessionSecret(key.ID)
		for _, bad := range []string{"", "cf_sk_", secret.Reveal() + "x", other.Reveal(), "cf_sk_" + other.Reveal()[6:]} {
			_, err := a.AuthenticateAPIKey(t.Context(), bad)
			wantErr(t, err, verify.ErrTokenInvalid)
		}
		time.Sleep(2 * time.Minute)
		if _, err := a.AuthenticateAPIKey(t.Context(), secret.Reveal()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		kept, err := store.Catalog().APIKey(t.Context(), key.ID)
		if err != nil || kept.LastUsedAt.IsZero() {
			t.Errorf("last use is not kept: %+v, %v", kept, err)
		}
		time.Sleep(time.Hour)
		_, err = a.AuthenticateAPIKey(t.Context(), secret.Reveal())
		wantErr(t, err, verify.ErrTokenInvalid)

		secret, key, err = a.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{Name: "all"})
		if err != nil || len(key.Scopes) != 3 {
			t.Fatalf("%+v, %v", key, err)
		}
		if _, err := a.AuthenticateAPIKey(t.Context(), secret.Reveal()); err != nil {
			t.Fatal(err)
		}
		if err := a.RevokeAPIKey(t.Context(), key.ID); err != nil {
			t.Fatal(err)
		}
		_, err = a.AuthenticateAPIKey(t.Context(), secret.Reveal())
		wantErr(t, err, verify.ErrTokenInvalid)
		wantErr(t, a.RevokeAPIKey(t.Context(), "nope"), counterfoil.ErrNotFound)
	})
}
