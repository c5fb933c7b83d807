package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// Whatever the session token comes in, a bound session asks for the bound cookie.
func TestSEC71BoundSessionsAskForProof(t *testing.T) {
	s := newGate(t)
	s.freeze()
	b := s.boundUser("ann@example.org")
	stranger := s.boundUser("ben@example.org")
	token := []string{cookie + "=" + b.token}
	s.forward(59 * time.Second)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: token}), 200) // what was under way
	s.forward(time.Second)
	wrong := map[string][]string{
		"none":              token,
		"empty":             {token[0], boundName + "="},
		"made up":           {token[0], boundName + "=cf_bd_" + strings.Repeat("f", 48)},
		"of another":        {token[0], boundName + "=" + stranger.bound},
		"altered":           {token[0], boundName + "=" + b.bound[:len(b.bound)-1] + "g"},
		"a longer life":     {token[0], boundName + "=cf_bd_ffff" + b.bound[10:]},
		"a challenge":       {token[0], boundName + "=cf_bd_" + b.challenge},
		"of another name":   {token[0], boundName + "-admin=" + b.bound},
		"another's session": {cookie + "=" + stranger.token, boundName + "=" + b.bound},
	}
	for name, cookies := range wrong {
		for _, method := range []string{"POST /v1/auth/refresh", "GET /v1/auth/session", "GET /v1/auth/sessions", "GET /v1/auth/session/watch"} {
			if a := s.wants(s.do(ask{method: method, cookies: cookies}), 401, `"code":"proof_required"`); a.setCookie(t) != nil {
				t.Errorf("%s, %s: a cookie is set", name, method)
			}
		}
	}
	for _, a := range []ask{
		{method: "POST /v1/auth/refresh", bearer: b.token},
		{method: "GET /v1/auth/session", bearer: b.token, cookies: []string{boundName + "=" + b.bound}}, // a header takes no cookie along
		{method: "POST /v1/auth/step-up", cookies: token, body: `{"password":"` + goodWord + `"}`},
		{method: "POST /v1/auth/password", cookies: token, body: `{"current":"` + goodWord + `","new":"` + newWord + `"}`},
		{method: "POST /v1/auth/sign-out", cookies: token, body: `{"which":"others"}`},
		{method: "POST /v1/auth/sign-out", cookies: token, body: `{"which":"all"}`},
		{method: "POST /v1/auth/sign-out", cookies: token, body: `{"sid":"` + stranger.sid + `"}`},
		{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"session_token":"` + b.token + `"}`},
		{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"session_token":"` + b.token + `","bound_cookie":"` + stranger.bound + `"}`},
		{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"access_token":"` + b.access + `","max_token_age":1}`},
	} {
		s.wants(s.do(a), 401, `"code":"proof_required"`)
	}
	two := append(b.cookies(), boundName+"="+b.bound)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: two}), 401, "credential_ambiguous")
	s.refusedAtGate(s.gate("", ask{cookies: token}), 401, "proof_required")
	b.alive()

	// With the cookie all of it works, until the window is over.
	s.wants(s.do(ask{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"session_token":"` + b.token + `","bound_cookie":"` + b.bound + `"}`}), 200, `"access_token"`)
	s.wants(s.do(ask{method: "POST /v1/sessions/authenticate", bearer: s.key, body: `{"access_token":"` + b.access + `","max_token_age":1,"bound_cookie":"` + b.bound + `"}`}), 200, `"access_token"`)
	s.wants(s.do(ask{method: "GET /v1/auth/sessions", cookies: b.cookies()}), 200, `"bound":true`)
	if a := s.gate("", ask{cookies: b.cookies()}); a.Code != 200 {
		t.Errorf("gateway: %d %s", a.Code, a.Body)
	}
	up := s.wants(s.do(ask{method: "POST /v1/auth/step-up", cookies: b.cookies(), body: `{"password":"` + goodWord + `"}`}), 200, `"bound":true`)
	b.token = up.setCookie(t).Value
	changed := s.wants(s.do(ask{method: "POST /v1/auth/password", cookies: b.cookies(), body: `{"current":"` + goodWord + `","new":"` + newWord + `"}`}), 200, `"bound":true`)
	b.token = changed.setCookie(t).Value
	s.forward(9*time.Minute + 4*time.Second) // 10 min 4 s: within the leeway
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 200)
	s.forward(time.Second)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 401, "proof_required")
	b.took(b.renew(b.proof(b.answer()), b.cookies()...))
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 200)
}

func TestSEC71SignOutAsksForNoProof(t *testing.T) {
	s := newSite(t)
	for _, body := range []string{``, `{"which":"this"}`, `{"sid":"SID"}`} {
		b := s.boundUser("ann" + string(rune('a'+len(body))) + "@example.org")
		s.forward(time.Hour)
		a := s.wants(s.do(ask{method: "POST /v1/auth/sign-out", cookies: []string{cookie + "=" + b.token}, body: strings.Replace(body, "SID", b.sid, 1)}), 204)
		if names := a.Result().Cookies(); len(names) != 3 || names[1].Name != boundName || names[1].MaxAge >= 0 {
			t.Errorf("SEC-09: cleared %v", names)
		}
		s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 401, "session_revoked", `"reason":"signed_out"`)
		// The browser is told to forget the key; why is told to the holder of the token.
		s.wants(b.renew(b.proof(b.answer()), b.cookies()...), 401, "session_revoked", "signed_out")
		s.wants(b.renew(b.proof(b.answer())), 401, "session_unknown", "!signed_out")
	}
}

// A sign-in ends the session before, proved or not, and drops its cookie.
func TestSEC71NextSignInReplacesBoundSession(t *testing.T) {
	s := newSite(t)
	b := s.boundUser("ann@example.org")
	s.forward(time.Hour)
	a := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", cookies: b.cookies(), body: credentials("ann@example.org")}), 200, `!"bound"`)
	dropped := false
	next := *b
	for _, c := range a.Result().Cookies() {
		switch c.Name {
		case boundName:
			dropped = c.MaxAge < 0
		case cookie:
			next.token = c.Value
		}
	}
	if !dropped {
		t.Error("the bound cookie stays")
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: []string{cookie + "=" + b.token}}), 401, "session_revoked", "replaced")
	s.wants(b.renew(b.proof(b.answer()), b.cookies()...), 401)
	// The old cookie does not matter to a session that is not bound.
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: next.cookies()}), 200)
	next.sid, next.offer = a.sid(), offerOf(t, a.Header())
	next.took(next.register(next.proof(next.registration())))
}

func TestSEC71ProofPutOff(t *testing.T) {
	s := newGate(t)
	b := s.boundUser("ann@example.org")
	s.forward(time.Hour)
	for _, method := range []string{"POST /v1/auth/refresh", "GET /v1/auth/session"} {
		a := s.wants(s.do(ask{method: method, cookies: b.cookies(), header: []string{"Secure-Session-Skipped", `quota_exceeded;session_identifier="` + b.sid + `"`}}), 503, `"code":"unavailable"`)
		if a.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	s.refusedAtGate(s.gate("", ask{cookies: b.cookies(), header: []string{"Secure-Session-Skipped", "unreachable"}}), 503, "unavailable")
}

// Pages behind Browser: a missing proof asks for a sign-in, as a person sees it.
func TestSEC71Pages(t *testing.T) {
	var told error
	s := newSite(t, func(c *counterfoil.Config) {
		c.SignedOut = func(w http.ResponseWriter, r *http.Request, err error) {
			told = err
			http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		}
	})
	b := s.boundUser("ann@example.org")
	s.forward(2 * time.Minute)
	page := s.auth.Browser()(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	get := func(header ...string) *httptest.ResponseRecorder {
		r := newRequest("GET", "/orders")
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		w := newRecorder()
		page.ServeHTTP(w, r)
		return w
	}
	if w := get("Cookie", strings.Join(b.cookies(), "; ")); w.Code != 200 {
		t.Errorf("proved: %d %s", w.Code, w.Body)
	}
	if w := get("Cookie", b.cookies()[0]); w.Code != 303 || told == nil || !strings.Contains(told.Error(), "proof_required") {
		t.Errorf("not proved: %d %v", w.Code, told)
	}
	if w := get("Cookie", b.cookies()[0], "Secure-Session-Skipped", "server_error"); w.Code != 503 {
		t.Errorf("put off: %d", w.Code)
	}
	b.alive()
}
