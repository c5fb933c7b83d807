package httpapi_test

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

// cutStore is a store that cannot be asked while cut is set.
type cutStore struct {
	counterfoil.Store
	cut *atomic.Bool
}

func (c cutStore) check() error {
	if c.cut.Load() {
		return errors.Join(counterfoil.ErrStoreUnavailable, errDown)
	}
	return nil
}

func (c cutStore) Now(ctx context.Context) (time.Time, error) {
	if err := c.check(); err != nil {
		return time.Time{}, err
	}
	return c.Store.Now(ctx)
}

func (c cutStore) Sessions() counterfoil.SessionStore { return cutSessions{c.Store.Sessions(), c} }
func (c cutStore) Catalog() counterfoil.Catalog       { return cutCatalog{c.Store.Catalog(), c} }

type cutSessions struct {
	counterfoil.SessionStore
	c cutStore
}

func (s cutSessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	if err := s.c.check(); err != nil {
		return counterfoil.Snapshot{}, err
	}
	return s.SessionStore.Snapshot(ctx, id)
}

type cutCatalog struct {
	counterfoil.Catalog
	c cutStore
}

func (s cutCatalog) APIKey(ctx context.Context, id string) (counterfoil.APIKey, error) {
	if err := s.c.check(); err != nil {
		return counterfoil.APIKey{}, err
	}
	return s.Catalog.APIKey(ctx, id)
}

// What a node answers that is cut off from its store and mints from copies.
func TestDegradedNode(t *testing.T) {
	s := newSite(t, func(c *counterfoil.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
		c.Degraded = 5 * time.Minute
	})
	bound := s.boundUser("bea@example.org")
	var cut atomic.Bool
	node, err := counterfoil.New(t.Context(), cutStore{s.db.Store(t), &cut}, s.auth.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	s.forward(time.Minute) // by then no entry is kept for less any more
	g, err := s.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	s.handler = httpapi.Handler(node)
	cookies := []string{cookie + "=" + g.SessionToken.Reveal()}
	refresh := func(cookies []string) *answer {
		t.Helper()
		return s.do(ask{method: "POST /v1/auth/refresh", cookies: cookies})
	}
	authenticate := func() *answer {
		t.Helper()
		return s.do(ask{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"session_token":"` + g.SessionToken.Reveal() + `"}`})
	}
	s.wants(refresh(cookies), 200, "!degraded")
	s.wants(authenticate(), 200, "!degraded")
	s.wants(refresh(bound.cookies()), 200, "!degraded")
	s.wants(s.do(ask{method: "GET /readyz?degraded=ok"}), 200, `"status":"ok"`)

	cut.Store(true)
	s.forward(2 * time.Second) // the API key has to be read again
	token := s.wants(refresh(cookies), 200, `"degraded":true`).text("access_token")
	s.wants(authenticate(), 200, `"degraded":true`)
	s.wants(s.do(ask{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"access_token":"` + token + `"}`}), 503, "unavailable")
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: token}), 200, `"degraded":true`)
	s.wants(s.introspect(s.key, "token="+token), 200, `"active":false`, "token_too_old")
	s.wants(s.introspect(s.key, "token="+g.AccessToken), 503, "unavailable")
	s.wants(s.do(ask{method: "GET /v1/auth/session", cookies: cookies}), 503, "unavailable")

	// A device-bound session proves itself as always. Who cannot now is not
	// sent to sign in: the proof takes the store.
	s.wants(refresh(bound.cookies()), 200, `"degraded":true`)
	s.wants(refresh(bound.cookies()[:1]), 503, "unavailable")

	s.upstream(s.gate("", ask{cookies: cookies}), "")
	s.refusedAtGate(s.gate("?no_degraded=1", ask{cookies: cookies}), 503, "unavailable")
	s.refusedAtGate(s.gate("?no_degraded=1", ask{bearer: token}), 401, "token_too_old")
	s.refusedAtGate(s.gate("?live=1", ask{bearer: token}), 401, "token_too_old")
	s.refusedAtGate(s.gate("?no_degraded=0", ask{bearer: token}), 400, "invalid_request")

	// A load balancer may have nowhere else to go.
	s.wants(s.do(ask{method: "GET /readyz"}), 503, "unavailable")
	s.wants(s.do(ask{method: "GET /readyz?degraded=ok"}), 200, `"status":"degraded"`)
	s.wants(s.do(ask{method: "GET /readyz?degraded=yes"}), 400, "degraded")
	s.forward(5 * time.Minute)
	s.wants(s.do(ask{method: "GET /readyz?degraded=ok"}), 503, "unavailable")
	s.wants(refresh(cookies), 503, "unavailable")
	s.wants(authenticate(), 503, "unavailable")
}
