package counterfoil_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// catalogStore is a cutStore whose catalog is cut off with the rest.
type catalogStore struct{ *cutStore }

func (s catalogStore) Catalog() counterfoil.Catalog {
	return cutCatalog{s.cutStore.Catalog(), s.cutStore}
}

type cutCatalog struct {
	counterfoil.Catalog
	s *cutStore
}

func (c cutCatalog) Keys(ctx context.Context) (counterfoil.KeyRing, error) {
	if err := c.s.pass(); err != nil {
		return counterfoil.KeyRing{}, err
	}
	return c.Catalog.Keys(ctx)
}

func (c cutCatalog) APIKey(ctx context.Context, id string) (counterfoil.APIKey, error) {
	if err := c.s.pass(); err != nil {
		return counterfoil.APIKey{}, err
	}
	return c.Catalog.APIKey(ctx, id)
}

// A node that read that an API key was revoked elsewhere does not go back to
// the good one that it read before, once it is cut off.
func TestDegradedKeepsNoRevokedAPIKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, seal := newStore(t), newSeal()
		cut := catalogStore{newCutStore(store)}
		defer cut.set(answering)
		here := open(t, cut, func(c *counterfoil.Config) { c.Seal, c.Degraded = seal, degraded })
		defer here.Close()
		there := open(t, store, func(c *counterfoil.Config) { c.Seal = seal })
		defer there.Close()
		revoked, key, err := here.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{Name: "revoked"})
		if err != nil {
			t.Fatal(err)
		}
		good, _, err := here.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{Name: "good"})
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []counterfoil.Secret{revoked, good} {
			if _, err := here.AuthenticateAPIKey(t.Context(), secret.Reveal()); err != nil {
				t.Fatal(err)
			}
		}
		if err := there.RevokeAPIKey(t.Context(), key.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		_, err = here.AuthenticateAPIKey(t.Context(), revoked.Reveal())
		wantErr(t, err, verify.ErrTokenInvalid)
		cut.set(failing)
		time.Sleep(2 * time.Second)
		if _, err := here.AuthenticateAPIKey(t.Context(), good.Reveal()); err != nil {
			t.Errorf("a good key at a node that is cut off: %v", err)
		}
		if _, err = here.AuthenticateAPIKey(t.Context(), revoked.Reveal()); err == nil {
			t.Error("a node that is cut off takes an API key of which it has read that it was revoked")
		}
	})
}

// A node that has not heard of another node's new signing key does not say of
// its tokens that they were revoked: it reads the keys, or it is unavailable.
func TestIntrospectOfAKeyThatIsNewElsewhere(t *testing.T) {
	store, seal := newStore(t), newSeal()
	cut := catalogStore{newCutStore(store)}
	use := func(c *counterfoil.Config) { c.Seal = seal }
	behind, ahead := open(t, cut, use), open(t, store, use)
	t.Cleanup(func() { cut.set(answering) })
	g := signIn(t, ahead, "alice")
	cut.set(failing)
	for range 2 { // behind knows the next key of the first, and not that of the second
		if err := ahead.RotateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := ahead.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = behind.Introspect(t.Context(), fresh.AccessToken)
	if !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, verify.ErrTokenInvalid) {
		t.Errorf("live check by a node that cannot read the keys: %v, want unavailable", err)
	}
	_, err = behind.Exchange(t.Context(), fresh.AccessToken, counterfoil.ExchangeRequest{})
	if !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, verify.ErrTokenInvalid) {
		t.Errorf("exchange by a node that cannot read the keys: %v, want unavailable", err)
	}
	cut.set(answering)
	if _, err := behind.Introspect(t.Context(), fresh.AccessToken); err != nil {
		t.Errorf("live check by a node that can read the keys: %v", err)
	}
	// Where no key is missing, a bad token stays a bad one.
	cut.set(failing)
	_, err = behind.Introspect(t.Context(), g.AccessToken[:len(g.AccessToken)-4]+"AAAA")
	wantErr(t, err, verify.ErrTokenInvalid)
}
