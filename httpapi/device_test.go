package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newRequest(method, path string) *http.Request { return httptest.NewRequest(method, path, nil) }

func TestSignUpSetsCookie(t *testing.T) {
	s := newSite(t)
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org"), header: []string{"User-Agent", "Browser/1"}}),
		201, `"token_type":"Bearer"`, `"user_agent":"Browser/1"`, `"ip":"192.0.2.7"`, `"amr":["pwd"]`, `"current":true`, "!session_token")
	c := up.setCookie(t)
	if c == nil || c.Name != cookie || !strings.HasPrefix(c.Value, "cf_st_") || c.MaxAge < 30*24*3600-5 || c.MaxAge > 30*24*3600 {
		t.Fatalf("cookie %v", c)
	}
	s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: strings.Replace(credentials("bob@example.org"), "}", `,"client_id":"stranger"}`, 1)}), 400, `"field":"client_id"`)
	s.wants(s.do(ask{method: "GET /v1/users?email=bob@example.org", bearer: s.key}), 200, `"users":[]`)
	s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ANN@example.org")}), 409, `"code":"conflict"`, `"field":"email"`)

	in := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: credentials("ann@example.org")}), 200, "!session_token")
	if in.sid() == up.sid() || in.setCookie(t) == nil {
		t.Error("the sign-in took up the session before")
	}
	unknown := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: credentials("bob@example.org")}), 401, `"code":"invalid_credentials"`)
	wrong := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: `{"email":"ann@example.org","password":"not it at all, sorry"}`}), 401)
	if unknown.Body.String() != wrong.Body.String() {
		t.Errorf("told apart:\n%s%s", unknown.Body, wrong.Body)
	}
	if unknown.setCookie(t) != nil {
		t.Error("a failed sign-in sets a cookie")
	}
}

func TestTransportBody(t *testing.T) {
	s := newSite(t)
	up := s.signUp("ann@example.org")
	if up.setCookie(t) != nil || !strings.HasPrefix(up.text("session_token"), "cf_st_") {
		t.Error("the session token is not in the body alone")
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: up.text("session_token")}), 200, `"access_token"`, "!session_token")
	s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: `{"email":"ann@example.org","password":"x","transport":"pigeon"}`}), 400, `"field":"transport"`, "cookie, body")
}

// SEC-11: what a client brings to a sign-in is never adopted, and dies.
func TestSEC11SignInReplacesSession(t *testing.T) {
	s := newSite(t)
	first := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201).setCookie(t)
	second := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: credentials("ann@example.org"), cookies: []string{cookie + "=" + first.Value}}), 200).setCookie(t)
	if first.Value == second.Value {
		t.Fatal("adopted")
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: []string{cookie + "=" + first.Value}}), 401, `"code":"session_revoked"`, `"reason":"replaced"`)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: []string{cookie + "=" + second.Value}}), 200)
	// Planted garbage is passed over.
	s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: credentials("ann@example.org"), cookies: []string{cookie + "=garbage"}}), 200)
}

func TestSessionCredential(t *testing.T) {
	s := newSite(t)
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201)
	mine := up.setCookie(t).Value
	other := s.another(up)
	token, sid := other.text("session_token"), other.sid()
	admin := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: strings.Replace(credentials("ann@example.org"), "}", `,"client_id":"admin"}`, 1)}), 200)
	adminCookie := admin.setCookie(t)
	if adminCookie.Name != cookie+"-admin" {
		t.Fatalf("the second application has the cookie %s", adminCookie.Name)
	}
	for _, tc := range []struct {
		name   string
		ask    ask
		status int
		want   string
	}{
		{"cookie", ask{cookies: []string{cookie + "=" + mine}}, 200, up.sid()},
		{"cookie among others", ask{cookies: []string{"a=b; " + cookie + "=" + mine + "; __host-counterfoil=x"}}, 200, up.sid()},
		{"bearer", ask{bearer: token}, 200, sid},
		{"bearer wins", ask{bearer: token, cookies: []string{cookie + "=" + mine}}, 200, sid},
		{"scheme in any case", ask{header: []string{"Authorization", "bearer " + token}}, 200, sid},
		{"an access token is passed over", ask{bearer: up.text("access_token"), cookies: []string{cookie + "=" + mine}}, 200, up.sid()},
		{"another scheme is passed over", ask{header: []string{"Authorization", "Basic YTpi"}, cookies: []string{cookie + "=" + mine}}, 200, up.sid()},
		{"an API key is no session", ask{bearer: s.key}, 401, "credential_missing"},
		{"an access token is no session", ask{bearer: up.text("access_token")}, 401, "credential_missing"},
		{"nothing", ask{}, 401, "credential_missing"},
		{"empty cookie", ask{cookies: []string{cookie + "="}}, 401, "credential_missing"},
		{"a cookie without the prefix", ask{cookies: []string{"counterfoil=" + mine}}, 401, "credential_missing"},
		{"two cookies", ask{cookies: []string{cookie + "=" + mine, cookie + "=" + mine}}, 401, "credential_ambiguous"},
		{"two cookies in one header", ask{cookies: []string{cookie + "=" + mine + "; " + cookie + "=x"}}, 401, "credential_ambiguous"},
		{"cookies of two applications", ask{cookies: []string{cookie + "=" + mine, cookie + "-admin=" + adminCookie.Value}}, 401, "credential_ambiguous"},
		{"two bearers", ask{header: []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}}, 401, "credential_ambiguous"},
		{"the other application", ask{cookies: []string{cookie + "-admin=" + adminCookie.Value}}, 200, admin.sid()},
		{"a session in the wrong cookie", ask{cookies: []string{cookie + "-admin=" + mine}}, 401, "session_unknown"},
		{"sid as a token (SEC-05)", ask{bearer: "cf_st_" + up.sid()}, 401, "session_unknown"},
		{"garbage", ask{bearer: "cf_st_garbage"}, 401, "session_unknown"},
		{"a wrong secret", ask{bearer: swapSecret(mine, token)}, 401, "session_unknown"},
		{"an endless token", ask{bearer: "cf_st_" + strings.Repeat("a", 4000)}, 401, "session_unknown"},
	} {
		t.Run("SEC-08 "+tc.name, func(t *testing.T) {
			s.TB = t
			for _, path := range []string{"POST /v1/auth/refresh", "GET /v1/auth/session", "GET /v1/auth/sessions"} {
				tc.ask.method, tc.ask.path = path, ""
				s.wants(s.do(tc.ask), tc.status, tc.want)
			}
			if tc.status != 200 && tc.want != "session_unknown" {
				tc.ask.method, tc.ask.path = "POST /v1/auth/sign-out", ""
				if a := s.wants(s.do(tc.ask), tc.status, tc.want); a.setCookie(t) != nil {
					t.Error("the cookie is cleared")
				}
			}
		})
	}
	s.TB = t

	// A mount of one application looks at its cookie only.
	one := httpapi.Device(s.auth, httpapi.WithDirectory(s.users), httpapi.WithClientID("admin"))
	r := newRequest("POST", "/refresh")
	r.Header.Set("Cookie", cookie+"="+mine+"; "+cookie+"-admin="+adminCookie.Value)
	w := newRecorder()
	one.ServeHTTP(w, r)
	if w.Code != 200 || !strings.Contains(w.Body.String(), admin.sid()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r = httptest.NewRequest("POST", "/sign-in", strings.NewReader(strings.Replace(credentials("ann@example.org"), "}", `,"client_id":"default"}`, 1)))
	r.Header.Set("Content-Type", "application/json")
	w = newRecorder()
	one.ServeHTTP(w, r)
	if w.Code != 400 || !strings.Contains(w.Body.String(), `"field":"client_id"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// swapSecret is the selector of one session token with the secret of another.
func swapSecret(a, b string) string {
	const selector = len("cf_st_") + 24
	return withChecksum(a[:selector] + b[selector:len(b)-6])
}

func TestRefresh(t *testing.T) {
	s := newSite(t)
	token := s.signUp("ann@example.org").text("session_token")
	for _, tc := range []struct {
		body   string
		status int
		want   []string
	}{
		{"", 200, []string{`"access_token"`}},
		{"{}", 200, []string{`"access_token"`}},
		{" {\n} ", 200, []string{`"access_token"`}},
		{`{"audience":"orders","active":false,"max_token_age":30}`, 200, []string{`"expires_in"`}},
		{`{"audience":null,"active":null}`, 200, nil},
		{`{"audience":"stranger"}`, 400, []string{`"field":"audience"`}},
		{`{"audience":7}`, 400, []string{`"field":"audience"`, "must be a string, not such a number"}},
		{`{"active":"no"}`, 400, []string{`"field":"active"`, "true or false"}},
		{`{"active":1}`, 400, []string{`"field":"active"`}},
		{`{"max_token_age":0}`, 400, []string{`"field":"max_token_age"`}},
		{`{"max_token_age":-1}`, 400, []string{`"field":"max_token_age"`}},
		{`{"max_token_age":1.5}`, 400, []string{`"field":"max_token_age"`, "whole number"}},
		{`{"max_token_age":99999999999999999999}`, 400, []string{`"field":"max_token_age"`}},
		{`{"Audience":"app"}`, 400, []string{`"field":"Audience"`, "spell it audience"}},
		{`{"audience":"app","audience":"orders"}`, 400, []string{`"field":"body"`}},
		{`{"refresh_token":"cf_st_0123456789"}`, 400, []string{`"field":"refresh_token"`, "active, audience, max_token_age"}},
		{`{"cf_st_0123456789":1}`, 400, []string{`cf_st_[redacted]`}},
		{`{"audience":"cf_st_0123456789"}`, 400, []string{`cf_st_[redacted]`}},
	} {
		s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token, body: tc.body}), tc.status, tc.want...)
	}
	fresh := s.do(ask{method: "POST /v1/auth/refresh", bearer: token, body: `{"audience":"orders"}`})
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: fresh.text("access_token")}), 200, `"aud":"orders"`)
	// SEC-25: only by POST.
	s.wants(s.do(ask{method: "GET /v1/auth/refresh", bearer: token, any: true}), 405)
}

func TestTerminalAnswers(t *testing.T) {
	s := newSite(t)
	up := s.signUp("ann@example.org")
	token := up.text("session_token")
	if err := s.auth.RevokeSession(t.Context(), up.sid(), "left_behind"); err != nil {
		t.Fatal(err)
	}
	gone := s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token}), 401,
		`"code":"session_revoked"`, `"sid":"`+up.sid()+`"`, `"reason":"left_behind"`, `"ended_at":`)
	if gone.setCookie(t) != nil {
		t.Error("a terminal answer touches the cookie: only sign-out clears it")
	}
	// A wrong secret learns nothing of that.
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: swapSecret(token, s.another(up).text("session_token"))}),
		401, `"code":"session_unknown"`, "!left_behind", "!"+up.sid())

	other := s.another(up)
	s.forward(8 * 24 * time.Hour)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: other.text("session_token")}), 401, `"code":"session_expired"`, `"sid":"`+other.sid()+`"`, `"ended_at":`)
}

// SEC-13: a refresh without activity does not slide the idle expiry.
func TestSEC13InactiveRefresh(t *testing.T) {
	s := newSite(t, func(c *counterfoil.Config) { c.Lifetimes = counterfoil.Strict })
	up := s.signUp("ann@example.org")
	token := up.text("session_token")
	idle := func(body string) any {
		t.Helper()
		return s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token, body: body}), 200).object("session")["idle_expires_at"]
	}
	s.forward(10 * time.Minute)
	if idle(`{"active":false}`) != up.object("session")["idle_expires_at"] {
		t.Error("a refresh without activity slid the idle expiry")
	}
	if idle("") == up.object("session")["idle_expires_at"] {
		t.Error("a refresh with activity did not slide the idle expiry")
	}
	other := s.another(up).text("session_token")
	for range 2 {
		s.forward(5 * time.Minute)
		s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: other, body: `{"active":false}`}), 200)
	}
	s.forward(5 * time.Minute)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: other, body: `{"active":false}`}), 401, "session_expired")
}

// Pain 19: the list is true, and ending one device does what it says.
func TestDevices(t *testing.T) {
	s := newSite(t)
	mine := s.signUp("ann@example.org")
	token := mine.text("session_token")
	phone, tablet := s.another(mine), s.another(mine)
	stranger := s.signUp("eve@example.org")

	page := s.wants(s.do(ask{method: "GET /v1/auth/sessions", bearer: token}), 200)
	sessions := page.json["sessions"].([]any)
	current := 0
	for _, one := range sessions {
		if one := one.(map[string]any); one["current"] == true {
			current++
			if one["sid"] != mine.sid() {
				t.Errorf("%v is marked", one["sid"])
			}
		}
	}
	if len(sessions) != 3 || current != 1 {
		t.Errorf("%d sessions, %d marked", len(sessions), current)
	}
	first := s.wants(s.do(ask{method: "GET /v1/auth/sessions?limit=2", bearer: token}), 200, `"next"`)
	s.wants(s.do(ask{method: "GET /v1/auth/sessions?limit=2&after=" + first.text("next"), bearer: token}), 200, "!next", mine.sid())

	signOut := func(body string) ask { return ask{method: "POST /v1/auth/sign-out", bearer: token, body: body} }
	t.Run("SEC-108 another user's session", func(t *testing.T) {
		s.wants(s.do(signOut(`{"sid":"`+stranger.sid()+`"}`)), 404, `"code":"not_found"`)
		s.wants(s.do(signOut(`{"sid":"0123456789abcdefghijklmn"}`)), 404)
		s.wants(s.do(signOut(`{"sid":"x' OR 1=1"}`)), 404)
		s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: stranger.text("session_token")}), 200)
	})
	s.wants(s.do(signOut(`{"sid":"`+phone.sid()+`"}`)), 204)
	s.wants(s.do(signOut(`{"sid":"`+phone.sid()+`"}`)), 204)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: phone.text("session_token")}), 401, "signed_out_everywhere")
	s.wants(s.do(ask{method: "GET /v1/auth/sessions", bearer: token}), 200, "!"+phone.sid(), tablet.sid())

	s.wants(s.do(signOut(`{"which":"others","sid":"`+tablet.sid()+`"}`)), 400, `"field":"sid"`)
	s.wants(s.do(signOut(`{"which":"mine"}`)), 400, `"field":"which"`, "this, others, all")
	s.wants(s.do(signOut(`{"which":"others"}`)), 204)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: tablet.text("session_token")}), 401, "session_revoked")
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token}), 200)
	// An ended session ends no others.
	s.wants(s.do(ask{method: "POST /v1/auth/sign-out", bearer: tablet.text("session_token"), body: `{"which":"all"}`}), 401, "session_revoked")
	s.wants(s.do(signOut(`{"which":"all"}`)), 204)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token}), 401, "session_revoked")
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: mine.text("access_token")}), 401, "token_revoked")
}

// SEC-26, SEC-27: the session ends, then the cookie goes; again is no error.
func TestSEC26SignOut(t *testing.T) {
	s := newSite(t)
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201)
	jar := []string{cookie + "=" + up.setCookie(t).Value}
	cleared := func(a *answer) {
		t.Helper()
		names := ""
		for _, c := range a.Result().Cookies() {
			names += c.Name + " "
			if c.Value != "" || c.MaxAge >= 0 {
				t.Errorf("not cleared: %s", c.Raw)
			}
		}
		if names != "__Host-counterfoil __Host-counterfoil-bound __Host-counterfoil-at " {
			t.Errorf("cleared: %s", names)
		}
	}
	s.wants(s.do(ask{method: "GET /v1/auth/sign-out", cookies: jar, any: true}), 405)
	cleared(s.wants(s.do(ask{method: "POST /v1/auth/sign-out", cookies: jar}), 204))
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: jar}), 401, "session_revoked", `"reason":"signed_out"`)
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: up.text("access_token")}), 401, "token_revoked")
	cleared(s.wants(s.do(ask{method: "POST /v1/auth/sign-out", cookies: jar, body: `{"which":"this"}`}), 204))
	cleared(s.wants(s.do(ask{method: "POST /v1/auth/sign-out", cookies: []string{cookie + "=nonsense"}}), 204))
	// What was never in a cookie clears none.
	token := s.another(up).text("session_token")
	if a := s.wants(s.do(ask{method: "POST /v1/auth/sign-out", bearer: token}), 204); len(a.Result().Cookies()) > 0 {
		t.Error("a Bearer cleared a cookie")
	}
}

// A store that is down ends nothing and clears nothing.
func TestOutageKeepsCookie(t *testing.T) {
	s := newSite(t)
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201)
	s.handler = httpapi.Handler(s.broken(), httpapi.WithDirectory(s.users))
	for _, path := range []string{"POST /v1/auth/sign-out", "POST /v1/auth/refresh", "GET /v1/auth/session"} {
		a := s.wants(s.do(ask{method: path, cookies: []string{cookie + "=" + up.setCookie(t).Value}}), 503, `"code":"unavailable"`)
		if a.setCookie(t) != nil {
			t.Errorf("%s clears the cookie", path)
		}
	}
	s.wants(s.do(ask{method: "GET /readyz"}), 503, "unavailable")
	s.wants(s.do(ask{method: "GET /healthz"}), 200)
}

func TestPasswordChange(t *testing.T) {
	s := newSite(t)
	up := s.signUp("ann@example.org")
	token := up.text("session_token")
	other := s.another(up).text("session_token")
	body := `{"current":"` + goodWord + `","new":"` + newWord + `"}`

	s.wants(s.do(ask{method: "POST /v1/auth/password", body: body}), 401, "credential_missing")
	s.wants(s.do(ask{method: "POST /v1/auth/password", bearer: token, body: `{"current":"wrong wrong wrong","new":"` + newWord + `"}`}), 401, "invalid_credentials")
	s.wants(s.do(ask{method: "POST /v1/auth/password", bearer: token, body: `{"current":"` + goodWord + `","new":"short"}`}), 400, `"field":"new"`, "!short")
	s.wants(s.do(ask{method: "POST /v1/auth/password", bearer: token, body: `{"current":"` + goodWord + `"}`}), 400, `"field":"new"`, "is required")

	changed := s.wants(s.do(ask{method: "POST /v1/auth/password", bearer: token, body: body}), 200, `"session_token"`)
	if changed.sid() != up.sid() || changed.setCookie(t) != nil {
		t.Error("not the same session, in the same place")
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: token}), 401, "session_unknown")
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: changed.text("session_token")}), 200)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: other}), 401, "session_revoked", "password_changed")
	s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: credentials("ann@example.org")}), 401, "invalid_credentials")

	// By cookie the new token comes in a cookie.
	in := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: `{"email":"ann@example.org","password":"` + newWord + `"}`}), 200)
	jar := []string{cookie + "=" + in.setCookie(t).Value}
	s.forward(time.Minute)
	up = s.wants(s.do(ask{method: "POST /v1/auth/step-up", cookies: jar, body: `{"password":"` + newWord + `"}`}), 200, "!session_token")
	if c := up.setCookie(t); c == nil || cookie+"="+c.Value == jar[0] {
		t.Errorf("step-up set %v", c)
	}
	if up.sid() != in.sid() || fmt.Sprint(up.object("session")["auth_time"]) == fmt.Sprint(in.object("session")["auth_time"]) {
		t.Error("step-up did not move auth_time of the same session")
	}
	s.wants(s.do(ask{method: "POST /v1/auth/step-up", cookies: jar, body: `{"password":"` + newWord + `"}`}), 401, "session_unknown")
}

func TestPasswordReset(t *testing.T) {
	s := newSite(t)
	up := s.signUp("ann@example.org")
	found := s.wants(s.do(ask{method: "GET /v1/users?email=Ann@example.org", bearer: s.key}), 200)
	id := found.json["users"].([]any)[0].(map[string]any)["id"].(string)
	reset := s.wants(s.do(ask{method: "POST /v1/users/" + id + "/password-reset", bearer: s.key}), 201, `"expires_at"`)
	body := func(token, word string) string { return `{"token":"` + token + `","new":"` + word + `"}` }

	s.wants(s.do(ask{method: "POST /v1/auth/password-reset", body: body(reset.text("token"), "password1")}), 400, `"field":"new"`)
	done := s.wants(s.do(ask{method: "POST /v1/auth/password-reset", body: body(reset.text("token"), newWord)}), 204)
	if done.setCookie(t) != nil {
		t.Error("a reset signed in")
	}
	s.wants(s.do(ask{method: "POST /v1/auth/password-reset", body: body(reset.text("token"), newWord)}), 400, `"field":"token"`)
	s.wants(s.do(ask{method: "POST /v1/auth/password-reset", body: body("cf_pr_garbage", newWord)}), 400, `"field":"token"`)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: up.text("session_token")}), 401, "password_reset")
}

func TestRateLimit(t *testing.T) {
	s := newSite(t)
	s.signUp("ann@example.org")
	for range 12 {
		a := s.do(ask{method: "POST /v1/auth/sign-in", body: `{"email":"ann@example.org","password":"wrong wrong wrong"}`})
		if a.Code == 429 {
			s.wants(a, 429, `"code":"rate_limited"`)
			if a.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			return
		}
	}
	t.Error("never slowed down")
}

// Without a directory its calls do not exist.
func TestWithoutDirectory(t *testing.T) {
	s := newSite(t)
	s.handler = httpapi.Handler(s.auth)
	for _, path := range []string{"/v1/auth/sign-up", "/v1/auth/sign-in", "/v1/auth/password", "/v1/auth/step-up", "/v1/auth/password-reset", "/v1/users", "/v1/users/x/password-reset"} {
		s.wants(s.do(ask{method: "POST " + path, body: "{}", bearer: s.key, any: true}), 404, `"code":"not_found"`)
		if doc := readDocument(t, s.handler); doc.Paths[path] != nil {
			t.Errorf("%s is documented", path)
		}
	}
	s.wants(s.do(ask{method: "GET /v1/users/x/epoch", bearer: s.key}), 200)
}

// Promise 3, pain 1: any number of refreshes at once; nobody is signed out.
func TestThousandParallelRefreshes(t *testing.T) {
	s := newSite(t)
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201)
	jar := cookie + "=" + up.setCookie(t).Value
	server := httptest.NewServer(s.handler)
	defer server.Close()
	server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 50
	var wg sync.WaitGroup
	answers := make(chan int, 1000)
	for range 50 {
		wg.Go(func() {
			for range 20 {
				r, _ := http.NewRequest("POST", server.URL+"/v1/auth/refresh", nil)
				r.Header.Set("Cookie", jar)
				res, err := server.Client().Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				answers <- res.StatusCode
			}
		})
	}
	wg.Wait()
	close(answers)
	n := 0
	for status := range answers {
		if n++; status != 200 {
			t.Fatalf("a refresh answered %d", status)
		}
	}
	if n != 1000 {
		t.Errorf("%d answers", n)
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: []string{jar}}), 200, up.sid())
}
