package httpapi_test

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

// deafStore is a store whose log cannot be followed while deaf is set.
type deafStore struct {
	counterfoil.Store
	deaf *atomic.Bool
}

func (d deafStore) Feed() counterfoil.FeedLog { return deafLog{d.Store.Feed(), d.deaf} }

type deafLog struct {
	counterfoil.FeedLog
	deaf *atomic.Bool
}

func (d deafLog) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	t, err := d.FeedLog.Tail(ctx, after)
	return deafTail{t, d.deaf}, err
}

type deafTail struct {
	counterfoil.Tail
	deaf *atomic.Bool
}

func (d deafTail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	batch, err := d.Tail.Next(ctx)
	if d.deaf.Load() {
		return counterfoil.FeedBatch{}, errDown
	}
	return batch, err
}

// SEC-38: a gateway on a node that no longer hears of revocations asks the store
// where the route says how old its knowledge may be, and else goes on.
func TestSEC38GatewayMaxFeedAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *counterfoil.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
			c.Clock = nil
		})
		var deaf atomic.Bool
		node, err := counterfoil.New(t.Context(), deafStore{s.db.Store(t), &deaf}, s.auth.Config())
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		other := s.auth
		s.handler = httpapi.Handler(node)
		signIn := func() (bearer ask, jar []string, sid string) {
			g, err := other.StartSession(t.Context(), counterfoil.SignIn{Subject: "ann"})
			if err != nil {
				t.Fatal(err)
			}
			jar = []string{cookie + "=" + g.SessionToken.Reveal()}
			first := s.gate("", ask{cookies: jar})
			s.upstream(first, "")
			return ask{bearer: g.AccessToken}, append(jar, atCookie+"="+first.setCookie(t).Value), g.Session.ID
		}
		passes := func(a *answer) { // the other node knows better, and does not matter here
			t.Helper()
			if a.Code != 200 || a.Header().Get("Authorization") == "" {
				t.Errorf("%d %s", a.Code, a.Body)
			}
		}
		bearer, jar, sid := signIn()
		stays, _, _ := signIn()
		passes(s.gate("?max_feed_age=1s", bearer))

		deaf.Store(true)
		if err := other.RevokeSession(t.Context(), sid, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		time.Sleep(900 * time.Millisecond)
		passes(s.gate("?max_feed_age=1s", bearer)) // within what the route takes
		time.Sleep(200 * time.Millisecond)
		passes(s.gate("", bearer))
		passes(s.gate("", ask{cookies: jar}))
		passes(s.gate("?max_feed_age=10s", bearer))
		s.refusedAtGate(s.gate("?max_feed_age=1s", bearer), 401, "token_revoked")
		s.refusedAtGate(s.gate("?max_feed_age=1s", ask{cookies: jar}), 401, "session_revoked")
		passes(s.gate("?max_feed_age=1s", stays))
		s.refusedAtGate(s.gate("/orders", ask{bearer: bearer.bearer, header: []string{"Counterfoil-Rules", "max_feed_age=1s"}}), 401, "token_revoked")

		deaf.Store(false)
		time.Sleep(10 * time.Second)
		s.refusedAtGate(s.gate("", bearer), 401, "token_revoked") // heard in the end
	})
}

// SEC-11, RFC 9470: the challenge comes through whole, for cookies and for
// tokens, and once the user has stepped up the same request is let through.
func TestSEC11GatewayStepUp(t *testing.T) {
	s := newGate(t)
	const word = "a quiet orchid on a ladder"
	user := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: `{"email":"ann@example.org","password":"` + word + `","transport":"body"}`}), 201, "session_token")
	jar := []string{cookie + "=" + user.text("session_token")}
	s.upstream(s.gate("?max_auth_age=10m", ask{cookies: jar}), "")
	s.forward(11 * time.Minute)
	at := s.gate("", ask{cookies: jar}).setCookie(t).Value
	for name, a := range map[string]*answer{
		"session":          s.gate("?max_auth_age=10m", ask{cookies: jar}),
		"both cookies":     s.gate("?max_auth_age=10m", ask{cookies: append(jar, atCookie+"="+at)}),
		"Bearer":           s.gate("?max_auth_age=10m", ask{bearer: at}),
		"below its path":   s.gate("/account", ask{cookies: jar, header: []string{"Counterfoil-Rules", "max_auth_age=10m"}}),
		"with other rules": s.gate("?max_auth_age=10m&live=1&max_token_age=5s", ask{cookies: jar}),
	} {
		s.refusedAtGate(a, 401, "insufficient_user_authentication")
		challenge := strings.Join(a.Header().Values("WWW-Authenticate"), "\n")
		for _, want := range []string{`Bearer realm="counterfoil"`, `error="insufficient_user_authentication"`, `error_description="`, `max_age="600"`} {
			if !strings.Contains(challenge, want) || strings.Contains(challenge, "\n") {
				t.Errorf("%s: challenge %q without %s", name, challenge, want)
			}
		}
		if !strings.Contains(a.Body.String(), `"max_age":600`) {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
	up := s.wants(s.do(ask{method: "POST /v1/auth/step-up", bearer: jar[0][len(cookie)+1:], body: `{"password":"` + word + `"}`}), 200, "session_token")
	jar = []string{cookie + "=" + up.text("session_token"), atCookie + "=" + at} // the old access token is still there
	passed := s.gate("?max_auth_age=10m", ask{cookies: jar})
	if s.upstream(passed, ""); passed.setCookie(t) == nil {
		t.Error("the old access token serves on")
	}
	s.upstream(s.gate("?max_auth_age=10m", ask{bearer: up.text("access_token")}), "")
}
