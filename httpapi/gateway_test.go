package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/verify"
)

const atCookie = verify.AccessTokenCookie

// newGate is a site whose requests come through a trusted proxy.
func newGate(t testing.TB) *site {
	return newSite(t, func(c *counterfoil.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
	})
}

// gate asks as a proxy does for a client's GET; more headers come by pairs.
func (s *site) gate(query string, a ask) *answer {
	s.Helper()
	if a.method == "" {
		a.method = "GET"
	}
	a.path, a.any = "/v1/gateway"+query, true
	if !strings.HasPrefix(query, "/") {
		a.header = append([]string{"X-Forwarded-Method", "GET"}, a.header...)
	}
	return s.do(a)
}

// upstream is what the service behind the proxy finds in the answer.
func (s *site) upstream(a *answer, audience string) *verify.Claims {
	s.Helper()
	token, ok := strings.CutPrefix(a.Header().Get("Authorization"), "Bearer ")
	if a.Code != 200 || !ok {
		s.Fatalf("%d %v %s, want 200 and a token", a.Code, a.Header(), a.Body)
	}
	v, err := s.auth.Verifier(audience)
	if err != nil {
		s.Fatal(err)
	}
	claims, err := v.Check(s.Context(), token)
	if err != nil {
		s.Fatalf("the upstream refuses the token: %v", err)
	}
	return claims
}

func (s *site) refusedAtGate(a *answer, status int, code string) *answer {
	s.Helper()
	s.wants(a, status, `"code":"`+code+`"`)
	h := a.Header()
	if h.Get("Counterfoil-Code") != code || h.Get("Authorization") != "" || h.Get("Set-Cookie") != "" {
		s.Errorf("a refusal with %v", h)
	}
	return a
}

func TestGatewayByCookie(t *testing.T) {
	s := newGate(t)
	user := s.signUp("ann@example.org")
	jar := []string{cookie + "=" + user.text("session_token")}

	first := s.gate("", ask{cookies: jar})
	if c := s.upstream(first, ""); c.Subject != user.subject() || c.SessionID != user.sid() {
		t.Errorf("claims %+v", c)
	}
	at := first.setCookie(t)
	if at == nil || at.Name != atCookie || "Bearer "+at.Value != first.Header().Get("Authorization") || !at.Secure || !at.HttpOnly || at.MaxAge > 60 { // SEC-07
		t.Errorf("Set-Cookie %v", at)
	}
	if got := first.Header().Get("Cache-Control"); got != "private, no-store" { // SEC-10
		t.Errorf("Cache-Control %q", got)
	}
	if first.Body.Len() > 0 {
		t.Errorf("body %q", first.Body)
	}

	// With the access token's cookie nothing is minted.
	both := append(jar, atCookie+"="+at.Value)
	again := s.gate("", ask{cookies: both})
	if s.upstream(again, ""); again.Header().Get("Authorization") != "Bearer "+at.Value || again.setCookie(t) != nil {
		t.Errorf("%v", again.Header())
	}
	// Too old for the route: another one.
	s.forward(25 * time.Second)
	if s.gate("", ask{cookies: both}).setCookie(t) != nil {
		t.Error("minted before it was due")
	}
	young := s.gate("?max_token_age=20s", ask{cookies: both})
	if s.upstream(young, ""); young.setCookie(t) == nil {
		t.Error("max_token_age=20s took an older token")
	}
	// For another service: nothing is kept in the browser, and what is kept there does not serve.
	other := s.gate("?audience=orders", ask{cookies: both})
	if s.upstream(other, "orders"); other.setCookie(t) != nil {
		t.Error("a token for orders is to be kept in the place of the default one")
	}

	s.wants(s.do(ask{method: "DELETE /v1/sessions/" + user.sid(), bearer: s.key}), 204)
	s.refusedAtGate(s.gate("", ask{cookies: both}), 401, "session_revoked")
	s.refusedAtGate(s.gate("?audience=orders", ask{cookies: both}), 401, "session_revoked")
}

func TestGatewayByBearer(t *testing.T) {
	s := newGate(t)
	user := s.signUp("ann@example.org")
	token := user.text("access_token")
	a := s.gate("", ask{bearer: token})
	if s.upstream(a, ""); a.Header().Get("Authorization") != "Bearer "+token || a.setCookie(t) != nil {
		t.Errorf("%v", a.Header())
	}
	// No cookie, no forgery: other origins may call with a token.
	s.upstream(s.gate("", ask{bearer: token, header: []string{"X-Forwarded-Method", "", "X-Original-Method", "POST", "Sec-Fetch-Site", "cross-site"}}), "")
	s.refusedAtGate(s.gate("", ask{bearer: token + "x"}), 401, "token_invalid")
	s.refusedAtGate(s.gate("", ask{bearer: user.text("session_token")}), 401, "token_invalid")
	s.refusedAtGate(s.gate("?audience=orders", ask{bearer: token}), 403, "audience_mismatch")
	s.refusedAtGate(s.gate("", ask{header: []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}}), 401, "credential_ambiguous")
	// A bad token is not mended by a good cookie.
	s.refusedAtGate(s.gate("", ask{bearer: "x.y.z", cookies: []string{cookie + "=" + user.text("session_token")}}), 401, "token_invalid")
	// Another scheme is the upstream's business.
	s.upstream(s.gate("", ask{header: []string{"Authorization", "Basic eDp5"}, cookies: []string{cookie + "=" + user.text("session_token")}}), "")
	s.wants(s.do(ask{method: "DELETE /v1/sessions/" + user.sid(), bearer: s.key}), 204)
	s.refusedAtGate(s.gate("", ask{bearer: token}), 401, "token_revoked")
}

func TestGatewayRules(t *testing.T) {
	s := newGate(t)
	user := s.signUp("ann@example.org")
	jar := []string{cookie + "=" + user.text("session_token")}
	s.wants(s.do(ask{method: "PATCH /v1/sessions/" + user.sid(), bearer: s.key, body: `{"roles":["admin"],"scope":["a:r","b:r"]}`}), 200)
	for _, query := range []string{
		"", "?", "?role=admin", "?scope=a:r&scope=b:r", "?live=1", "?max_token_age=30s&max_auth_age=10m&audience=app", "?role=admin&scope=a:r&live=1", "?max_feed_age=1m", "?max_feed_age=500ms&max_auth_age=10m",
	} {
		s.upstream(s.gate(query, ask{cookies: jar}), "")
	}
	for query, status := range map[string]int{"?role=owner": 403, "?role=admin&role=owner": 403, "?scope=c:r": 403, "?scope=a:r&scope=c:r": 403} {
		s.refusedAtGate(s.gate(query, ask{cookies: jar}), status, "insufficient_scope")
	}
	s.forward(30 * time.Second)
	a := s.refusedAtGate(s.gate("?max_auth_age=20s", ask{cookies: jar}), 401, "insufficient_user_authentication")
	if !strings.Contains(a.Header().Get("WWW-Authenticate"), `max_age="20"`) {
		t.Errorf("challenge %q", a.Header().Get("WWW-Authenticate"))
	}
	// A slip in a rule lets nobody through.
	for _, query := range []string{
		"?rol=admin", "?Role=admin", "?role=", "?role", "?live=true", "?live", "?live=0", "?live=1&live=1", "?max_token_age=30", "?max_token_age=0s", "?max_token_age=-1m",
		"?max_token_age=30s&max_token_age=1m", "?max_auth_age=x", "?max_feed_age=1", "?max_feed_age=99ms", "?max_feed_age=", "?max_feed_age=1s&max_feed_age=1s", "?audience=nobody", "?audience=app&audience=app", "?scope=a:r+b:r", "?scope=", "?a;b", "?%zz", "?role=admin&&x",
		"?" + strings.Repeat("x", 4000),
	} {
		s.refusedAtGate(s.gate(query, ask{cookies: jar}), 400, "invalid_request")
	}
}

// Envoy sends the client's own method, path and query below the prefix.
func TestGatewayBelowItsPath(t *testing.T) {
	s := newGate(t)
	jar := []string{cookie + "=" + s.signUp("ann@example.org").text("session_token")}
	rules := func(value string) []string { return []string{"Counterfoil-Rules", value} }
	for _, path := range []string{"/orders?x=1", "/orders?role=owner", "/", "/?role=admin", "//x", "/a%2fb;c?%zz"} {
		s.upstream(s.gate(path, ask{cookies: jar, header: rules("none")}), "")
		s.upstream(s.gate(path, ask{cookies: jar, header: rules("live=1&max_token_age=30s")}), "")
		s.refusedAtGate(s.gate(path, ask{cookies: jar, header: rules("role=owner")}), 403, "insufficient_scope")
		s.refusedAtGate(s.gate(path, ask{cookies: jar, header: rules("rol=owner")}), 400, "invalid_request")
		// Without the header a route's rules would be lost: nobody passes.
		s.refusedAtGate(s.gate(path, ask{cookies: jar}), 400, "invalid_request")
		s.refusedAtGate(s.gate(path, ask{cookies: jar, header: []string{"X-Forwarded-Method", "GET"}}), 400, "invalid_request")
		s.refusedAtGate(s.gate(path, ask{cookies: jar, header: append(rules("role=owner"), rules("none")...)}), 400, "invalid_request")
	}
	// At the gateway's own path a client's header changes nothing.
	s.refusedAtGate(s.gate("?role=owner", ask{cookies: jar, header: rules("none")}), 403, "insufficient_scope")

	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"} {
		want := 200
		if !strings.Contains("GET HEAD OPTIONS", method) {
			want = 403
		}
		cross := append(rules("none"), "Sec-Fetch-Site", "cross-site")
		if a := s.gate("/orders", ask{method: method, cookies: jar, header: cross}); a.Code != want {
			t.Errorf("%s from another site: %d", method, a.Code)
		}
		s.upstream(s.gate("/orders", ask{method: method, cookies: jar, header: append(rules("none"), "Sec-Fetch-Site", "same-origin")}), "")
	}
	// What a client says of its method does not count against what it is.
	s.refusedAtGate(s.gate("/orders", ask{method: "POST", cookies: jar, header: append(rules("none"), "X-Forwarded-Method", "GET", "Sec-Fetch-Site", "cross-site")}), 400, "invalid_request")
}

// SEC-98: what another site has a browser send does not reach the upstream
// with the user's rights, whatever method the proxy itself asks with.
func TestSEC98Gateway(t *testing.T) {
	s := newGate(t)
	user := s.signUp("ann@example.org")
	jar := []string{cookie + "=" + user.text("session_token")}
	ok := func(header ...string) {
		t.Helper()
		s.upstream(s.do(ask{method: "GET /v1/gateway", cookies: jar, header: header, any: true}), "")
	}
	refused := func(status int, header ...string) {
		t.Helper()
		s.refusedAtGate(s.do(ask{method: "GET /v1/gateway", cookies: jar, header: header, any: true}), status, "invalid_request")
	}
	for _, name := range []string{"X-Forwarded-Method", "X-Original-Method"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "post", "LOCK"} {
			refused(403, name, method, "Sec-Fetch-Site", "cross-site")
			refused(403, name, method, "Sec-Fetch-Site", "same-site")
			refused(403, name, method, "Origin", "https://evil.example", "X-Forwarded-Host", "app.example")
			refused(403, name, method, "Origin", "null")
			ok(name, method, "Sec-Fetch-Site", "same-origin")
			ok(name, method, "Origin", issuer)
			ok(name, method, "Origin", friend, "Sec-Fetch-Site", "cross-site") // WithOrigins
			ok(name, method)                                                   // no browser
		}
		ok(name, "GET", "Sec-Fetch-Site", "cross-site")
		ok(name, "HEAD", "Sec-Fetch-Site", "cross-site")
	}
	// The host that the client asked for, as the proxy tells.
	ok("X-Forwarded-Method", "POST", "Host", "gate.internal", "X-Forwarded-Host", "app.example", "Origin", issuer)
	refused(403, "X-Forwarded-Method", "POST", "Host", "gate.internal", "Origin", issuer)
	refused(400, "X-Forwarded-Method", "POST", "X-Forwarded-Host", "evil.example", "X-Forwarded-Host", "app.example", "Origin", issuer)
	refused(400, "X-Forwarded-Method", "POST", "X-Forwarded-Host", "evil.example, app.example", "Origin", issuer)
	// A WebSocket handshake is a GET.
	refused(403, "X-Forwarded-Method", "GET", "Sec-Websocket-Key", "x", "Origin", "https://evil.example")
	refused(403, "X-Forwarded-Method", "GET", "Upgrade", "websocket", "Sec-Fetch-Site", "cross-site")
	ok("X-Forwarded-Method", "GET", "Upgrade", "websocket", "Sec-Websocket-Key", "x", "Origin", issuer)
	// A method that is not told, or told twice differently, is none.
	refused(400)
	refused(400, "X-Forwarded-Method", "GET", "X-Original-Method", "POST")
	refused(400, "X-Forwarded-Method", "GET", "X-Forwarded-Method", "POST")
	ok("X-Forwarded-Method", "POST", "X-Original-Method", "POST")
}

// SEC-89: what a header says of the client is believed of a trusted proxy only.
func TestSEC89GatewayTrustsProxiesOnly(t *testing.T) {
	s := newGate(t)
	jar := []string{cookie + "=" + s.signUp("ann@example.org").text("session_token")}
	s.upstream(s.gate("", ask{cookies: jar}), "")
	for _, ip := range []string{"192.0.2.8:1", "[2001:db8::1]:1", "127.0.0.1:1", "@", ""} {
		s.ip = ip
		s.refusedAtGate(s.gate("", ask{cookies: jar, header: []string{"X-Forwarded-For", "192.0.2.7"}}), 403, "invalid_request")
	}
	if n := strings.Count(s.logs.String(), "no trusted proxy, and refuses"); n != len(s.nodes) {
		t.Errorf("the operator is told %d times, want once by each node", n)
	}
}

func TestGatewayRefusals(t *testing.T) {
	s := newGate(t)
	token := s.signUp("ann@example.org").text("session_token")
	one := cookie + "=" + token
	s.refusedAtGate(s.gate("", ask{}), 401, "credential_missing")
	s.refusedAtGate(s.gate("", ask{cookies: []string{"counterfoil=" + token}}), 401, "credential_missing")
	s.refusedAtGate(s.gate("", ask{cookies: []string{one, one}}), 401, "credential_ambiguous") // SEC-08
	s.refusedAtGate(s.gate("", ask{cookies: []string{one, atCookie + "=x", atCookie + "=y"}}), 401, "credential_ambiguous")
	s.refusedAtGate(s.gate("", ask{cookies: []string{cookie + "=" + token[:len(token)-1]}}), 401, "session_unknown")
	s.upstream(s.gate("", ask{cookies: []string{one, atCookie + "=garbage"}}), "")
	if got := s.gate("", ask{}).Header().Get("WWW-Authenticate"); got != `Bearer realm="counterfoil"` {
		t.Errorf("challenge %q", got)
	}
	// Beside the gateway's path there is nothing of it.
	s.wants(s.do(ask{method: "GET /v1/gatewayx", any: true}), 404)
}

// One page brings many requests: they cost one refresh.
func TestGatewayRefreshesOnceForAFanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mints atomic.Int64
		release := make(chan struct{})
		s := newSite(t, func(c *counterfoil.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
			c.Claims = func(context.Context, counterfoil.Session) (counterfoil.Claims, error) {
				if mints.Add(1) > 1 { // the first is the sign-in's
					<-release
				}
				return counterfoil.Claims{}, nil
			}
		})
		s.oneNode() // they share what one process does
		g, err := s.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				r := httptest.NewRequest("GET", "/v1/gateway", nil)
				r.RemoteAddr = s.ip
				r.Header.Set("X-Forwarded-Method", "GET")
				r.Header.Set("Cookie", g.Cookie().String())
				w := httptest.NewRecorder()
				s.handler.ServeHTTP(w, r)
				if w.Code != 200 {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		}
		synctest.Wait() // all of them are waiting
		close(release)
		all.Wait()
		if n := mints.Load(); n != 2 {
			t.Errorf("40 requests were minted for %d times, want once", n-1)
		}
	})
}

// Mounted in an application, behind a prefix of its own.
func TestGatewayMounted(t *testing.T) {
	s := newGate(t)
	up := s.signUp("ann@example.org")
	mux := http.NewServeMux()
	gateway := http.StripPrefix("/gate", httpapi.Gateway(s.auth, httpapi.WithClientID("admin")))
	mux.Handle("/gate", gateway)
	mux.Handle("/gate/", gateway)
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains") // the application's own
		mux.ServeHTTP(w, r)
	})
	at := func(path, cookies string) *answer {
		return s.do(ask{method: "GET " + path, any: true, header: []string{"X-Original-Method", "GET", "Cookie", cookies}})
	}
	// The other application's cookie is not looked at.
	s.refusedAtGate(at("/gate", cookie+"="+up.text("session_token")), 401, "credential_missing")
	g, err := s.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "bob", ClientID: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	a := at("/gate?live=1", g.Cookie().String())
	if c := s.upstream(a, ""); c.ClientID != "admin" || a.setCookie(t) != nil {
		t.Errorf("client %q, cookie %v", c.ClientID, a.setCookie(t))
	}
	// Nor is its access token.
	foreign := s.do(ask{method: "GET /gate", any: true, header: []string{"X-Original-Method", "GET", "Authorization", "Bearer " + up.text("access_token")}})
	s.refusedAtGate(foreign, 401, "token_invalid")
	s.refusedAtGate(at("/gate?role=x", g.Cookie().String()), 403, "insufficient_scope")
	s.refusedAtGate(at("/gate/deeper?role=x", g.Cookie().String()), 400, "invalid_request")
	s.refusedAtGate(at("/gate/", g.Cookie().String()), 400, "invalid_request")
}

func FuzzGatewayRules(f *testing.F) {
	s := newGate(f)
	jar := cookie + "=" + s.signUp("ann@example.org").text("session_token")
	for _, seed := range []string{"role=admin", "max_token_age=30s&live=1", "scope=a&scope=b", "audience=orders", "%zz", "role", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rules string) {
		r := httptest.NewRequest("GET", "/v1/gateway/x", nil)
		r.RemoteAddr = s.ip
		r.Header["Counterfoil-Rules"] = []string{rules}
		r.Header["Cookie"] = []string{jar}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 403:
		default:
			t.Errorf("%q: %d %s", rules, w.Code, w.Body)
		}
		// Every rule is a demand: what names a role is never let through.
		if strings.HasPrefix(rules, "role=") && w.Code == 200 {
			t.Errorf("%q lets a user without roles through", rules)
		}
	})
}
