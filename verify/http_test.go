package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve runs one request through a route and returns the answer. The handler
// writes the subject.
func serve(route func(http.Handler) http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	route(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := FromContext(r.Context()); ok {
			fmt.Fprint(w, c.Subject)
			return
		}
		fmt.Fprint(w, "stranger")
	})).ServeHTTP(w, r)
	return w
}

func code(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	if w.Code == http.StatusOK {
		return w.Body.String()
	}
	var p struct{ Code string }
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	return fmt.Sprint(w.Code, " ", p.Code)
}

func request(headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "/orders?access_token=x", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestCredentials(t *testing.T) {
	v := newLocal(t, nil)
	token := v.key.mint(t, goodClaims(start))
	other := v.key.mint(t, goodClaims(start).with(claims{"sub": "user-2"}))
	const at = AccessTokenCookie
	for _, tc := range []struct {
		name                     string
		headers                  []string
		require, optional, cooky string // "" as the one before
	}{
		{"none", nil, "401 credential_missing", "stranger", "401 credential_missing"},
		{"bearer", []string{"Authorization", "Bearer " + token}, "user-1", "", ""},
		{"any case", []string{"Authorization", "bEaReR  " + token}, "user-1", "", ""},
		{"no space", []string{"Authorization", "Bearer" + token}, "401 credential_missing", "stranger", "401 credential_missing"},
		{"no scheme", []string{"Authorization", token}, "401 credential_missing", "stranger", "401 credential_missing"},
		{"no token", []string{"Authorization", "Bearer"}, "401 token_invalid", "", ""},
		{"bad token", []string{"Authorization", "Bearer x.y.z"}, "401 token_invalid", "", ""},
		{"two in one", []string{"Authorization", "Bearer " + token + ", Bearer " + token}, "401 token_invalid", "", ""},
		{"basic", []string{"Authorization", "Basic eDp5"}, "401 credential_missing", "stranger", "401 credential_missing"},
		{"two headers", []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}, "401 credential_ambiguous", "", ""},
		{"cookie", []string{"Cookie", at + "=" + token}, "401 credential_missing", "stranger", "user-1"},
		{"cookie among others", []string{"Cookie", "a=b; " + at + "=" + token + ";c=d"}, "401 credential_missing", "stranger", "user-1"},
		{"SEC-08 two cookies", []string{"Cookie", at + "=" + token + "; " + at + "=" + other}, "401 credential_missing", "stranger", "401 credential_ambiguous"},
		{"SEC-08 two cookie headers", []string{"Cookie", at + "=" + token, "Cookie", at + "=" + token}, "401 credential_missing", "stranger", "401 credential_ambiguous"},
		{"SEC-08 no prefix", []string{"Cookie", "counterfoil-at=" + token}, "401 credential_missing", "stranger", "401 credential_missing"},
		{"header first", []string{"Authorization", "Bearer " + other, "Cookie", at + "=" + token}, "user-2", "", ""},
		{"bad header, good cookie", []string{"Authorization", "Bearer x", "Cookie", at + "=" + token}, "401 token_invalid", "", ""},
		{"basic and cookie", []string{"Authorization", "Basic eDp5", "Cookie", at + "=" + token}, "401 credential_missing", "stranger", "user-1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.optional == "" {
				tc.optional = tc.require
			}
			if tc.cooky == "" {
				tc.cooky = tc.optional
			}
			for _, c := range []struct {
				name  string
				route func(http.Handler) http.Handler
				want  string
			}{
				{"Require", v.Require(), tc.require},
				{"Optional", v.Optional(), tc.optional},
				{"Cookie", v.Require(Cookie()), tc.cooky},
			} {
				if got := code(t, serve(c.route, request(tc.headers...))); got != c.want {
					t.Errorf("%s: %s, want %s", c.name, got, c.want)
				}
			}
		})
	}
}

func TestSEC98CookiesAndOrigins(t *testing.T) {
	v := newLocal(t, func(c *Config, _ *Local) { c.TrustedOrigins = []string{"https://pages.example"} })
	token := v.key.mint(t, goodClaims(start))
	route := v.Require(Cookie())
	for _, tc := range []struct {
		method, site, origin, want string
	}{
		{"GET", "cross-site", "https://evil.example", "user-1"},
		{"HEAD", "cross-site", "https://evil.example", "user-1"},
		{"POST", "same-origin", "", "user-1"},
		{"POST", "none", "", "user-1"},
		{"POST", "", "", "user-1"}, // not a browser; SameSite=Lax covers the rest
		{"POST", "cross-site", "https://evil.example", "403 invalid_request"},
		{"POST", "same-site", "https://sub.app.example", "403 invalid_request"},
		{"POST", "", "https://evil.example", "403 invalid_request"},
		{"POST", "", "null", "403 invalid_request"},
		{"POST", "", "https://app.example", "user-1"},
		{"DELETE", "cross-site", "", "403 invalid_request"},
		{"POST", "cross-site", "https://pages.example", "user-1"},
		{"POST", "cross-site", "https://pages.example.evil", "403 invalid_request"},
	} {
		do := func(name, value string) string {
			r := httptest.NewRequest(tc.method, "https://app.example/orders", nil)
			r.Header.Set(name, value)
			if tc.site != "" {
				r.Header.Set("Sec-Fetch-Site", tc.site)
			}
			if tc.origin != "" {
				r.Header.Set("Origin", tc.origin)
			}
			return code(t, serve(route, r))
		}
		if got := do("Cookie", AccessTokenCookie+"="+token); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
		// A header is no ambient credential: no page can make another send it.
		if got := do("Authorization", "Bearer "+token); got != "user-1" {
			t.Errorf("%+v with a header: %s", tc, got)
		}
	}
}

func TestRules(t *testing.T) {
	v := newLocal(t, nil)
	token := v.key.mint(t, goodClaims(start).with(claims{"roles": []string{"staff"}, "scope": "a b"})) // auth_time: 2 min ago
	noAuth := v.key.mint(t, goodClaims(start).with(claims{"auth_time": nil}))
	future := v.key.mint(t, goodClaims(start).with(claims{"auth_time": start.Unix() + 6}))
	for _, tc := range []struct {
		name  string
		token string
		rules []Rule
		after time.Duration
		want  error
	}{
		{"role", token, []Rule{Role("staff")}, 0, nil},
		{"role missing", token, []Rule{Role("staff"), Role("admin")}, 0, ErrInsufficientScope},
		{"scope", token, []Rule{Scope("a"), Scope("b", "a")}, 0, nil},
		{"scope missing", token, []Rule{Scope("a", "c")}, 0, ErrInsufficientScope},
		{"auth age", token, []Rule{MaxAuthAge(2 * time.Minute)}, 0, nil},
		{"auth age over", token, []Rule{MaxAuthAge(2 * time.Minute)}, time.Second, ErrInsufficientUserAuthentication},
		{"the stricter of two", token, []Rule{MaxAuthAge(time.Minute), MaxAuthAge(time.Hour)}, 0, ErrInsufficientUserAuthentication},
		{"auth age unknown", noAuth, []Rule{MaxAuthAge(time.Hour)}, 0, ErrInsufficientUserAuthentication},
		{"auth age in the future", future, []Rule{MaxAuthAge(time.Hour)}, 0, ErrInsufficientUserAuthentication},
		{"token age", token, []Rule{MaxTokenAge(30 * time.Second)}, 30 * time.Second, nil},
		{"token age over", token, []Rule{MaxTokenAge(30 * time.Second)}, 31 * time.Second, ErrTokenTooOld},
		{"cookie has no meaning here", token, []Rule{Cookie()}, 0, nil},
		{"impossible", token, []Rule{Live()}, 0, ErrUnavailable},
		{"no rule", token, []Rule{{}}, 0, ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v.clock.set(start.Add(tc.after))
			if _, err := v.Check(t.Context(), tc.token, tc.rules...); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestARuleThatCannotBeKeptPanicsWhenTheRouteIsBuilt(t *testing.T) {
	v := newLocal(t, nil)
	for name, rule := range map[string]Rule{
		"Live": Live(), "MaxTokenAge": MaxTokenAge(0), "MaxAuthAge": MaxAuthAge(-1), "Role": Role(""),
		"Scope": Scope(), "one scope token": Scope("a b"), "Rule": {},
	} {
		for _, build := range []func(){
			func() { v.Require(rule) }, func() { v.Optional(rule) }, func() { v.Checker(rule) },
		} {
			func() {
				defer func() {
					if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), name) {
						t.Errorf("%s: panic %v", name, p)
					}
				}()
				build()
			}()
		}
	}
}

func TestWriteError(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	bearer := `Bearer realm="counterfoil"`
	for _, tc := range []struct {
		err    error
		status int
		body   string // without title and detail
		auth   string // what WWW-Authenticate begins with
	}{
		{ErrCredentialMissing, 401, `{"code":"credential_missing"}`, bearer},
		{ErrCredentialAmbiguous, 401, `{"code":"credential_ambiguous"}`, bearer + `, error="invalid_request", `},
		{ErrTokenExpired, 401, `{"code":"token_expired"}`, bearer + `, error="invalid_token", error_description="The access token has expired. Refresh it."`},
		{because(ErrTokenInvalid, errors.New("a secret")), 401, `{"code":"token_invalid"}`, bearer + `, error="invalid_token"`},
		{ErrAudienceMismatch, 403, `{"code":"audience_mismatch"}`, bearer + `, error="invalid_token"`},
		{&Error{Status: 403, Code: CodeInsufficientScope, Scope: []string{"a", "b"}}, 403, `{"code":"insufficient_scope","scope":"a b"}`,
			bearer + `, error="insufficient_scope", error_description="The access token does not grant what this resource asks for.", scope="a b"`},
		{&Error{Status: 401, Code: CodeInsufficientAuth, MaxAge: 1500 * time.Millisecond, ACRValues: []string{"x", `"`}}, 401,
			`{"acr_values":"x \"","code":"insufficient_user_authentication","max_age":2}`,
			bearer + `, error="insufficient_user_authentication", error_description="This resource asks for a more recent or stronger authentication.", max_age="2", acr_values="x \""`},
		{&Error{Status: 401, Code: CodeSessionRevoked, Ended: &Ended{"s1", "signed_out", start}}, 401,
			`{"code":"session_revoked","ended_at":1763770000,"reason":"signed_out","sid":"s1"}`, bearer + `, error="invalid_token"`},
		{ErrCrossOrigin, 403, `{"code":"invalid_request","field":"Origin"}`, ""},
		{ErrUnavailable, 503, `{"code":"unavailable"}`, ""},
		{ErrUnauthenticated, 503, `{"code":"unavailable"}`, ""}, // a family is no refusal
		{errors.New("database password wrong"), 503, `{"code":"unavailable"}`, ""},
		{fmt.Errorf("wrapped: %w", ErrTokenStale), 401, `{"code":"token_stale"}`, bearer + `, error="invalid_token"`},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			w := httptest.NewRecorder()
			WriteError(w, r, tc.err)
			var body map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			if body["status"] != float64(tc.status) || body["title"] == "" || body["detail"] == "" {
				t.Errorf("%s", w.Body)
			}
			delete(body, "status")
			delete(body, "title")
			delete(body, "detail")
			rest, _ := json.Marshal(body)
			auth := w.Header().Get("WWW-Authenticate")
			if w.Code != tc.status || string(rest) != tc.body || !strings.HasPrefix(auth, tc.auth) || tc.auth == "" && auth != "" {
				t.Errorf("%d %s\n%s", w.Code, rest, auth)
			}
			if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%v", w.Header())
			}
			if (w.Header().Get("Retry-After") != "") != (tc.status == 503) {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

func TestFamiliesOfErrors(t *testing.T) {
	families := []error{ErrUnauthenticated, ErrForbidden, ErrUnavailable}
	for _, tc := range []struct {
		err    error
		family error
	}{
		{ErrTokenInvalid, ErrUnauthenticated}, {ErrTokenExpired, ErrUnauthenticated}, {ErrTokenStale, ErrUnauthenticated},
		{ErrTokenRevoked, ErrUnauthenticated}, {ErrTokenTooOld, ErrUnauthenticated}, {ErrInsufficientUserAuthentication, ErrUnauthenticated},
		{ErrSessionRevoked, ErrUnauthenticated}, {ErrSessionExpired, ErrUnauthenticated}, {ErrSessionUnknown, ErrUnauthenticated},
		{ErrCredentialMissing, ErrUnauthenticated}, {ErrCredentialAmbiguous, ErrUnauthenticated},
		{ErrAudienceMismatch, ErrForbidden}, {ErrInsufficientScope, ErrForbidden}, {ErrCrossOrigin, ErrForbidden},
		{ErrUnavailable, ErrUnavailable},
	} {
		err := fmt.Errorf("wrapped: %w", because(tc.err, context.Canceled))
		if !errors.Is(err, tc.err) || !errors.Is(err, context.Canceled) || errors.Is(tc.family, tc.err) && tc.family != tc.err {
			t.Errorf("%v", err)
		}
		for _, f := range families {
			if errors.Is(err, f) != (f == tc.family) {
				t.Errorf("%v in the family %v: %v", err, f, errors.Is(err, f))
			}
		}
	}
	if errors.Is(ErrTokenExpired, ErrTokenStale) {
		t.Error("two causes are one")
	}
}

func TestNewContextForTestsOfHandlers(t *testing.T) {
	ctx := NewContext(t.Context(), &Claims{Subject: "user-1"})
	if c, ok := FromContext(ctx); !ok || c.Subject != "user-1" {
		t.Error("no claims")
	}
	if c, ok := FromContext(NewContext(t.Context(), nil)); ok || c != nil {
		t.Error("claims from nowhere")
	}
	if _, ok := FromContext(t.Context()); ok {
		t.Error("claims from nowhere")
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	good := Config{Issuer: testIssuer, Audience: testAudience}
	for _, tc := range []struct {
		field  string
		change func(*Config)
	}{
		{"Issuer", func(c *Config) { c.Issuer = "" }},
		{"Issuer", func(c *Config) { c.Issuer = "app.example" }},
		{"Issuer", func(c *Config) { c.Issuer = "ftp://app.example" }},
		{"Audience", func(c *Config) { c.Audience = "" }},
		{"AcceptAnyAudience", func(c *Config) { c.AcceptAnyAudience = true }},
		{"Authority", func(c *Config) { c.Authority = "app.internal:8700" }},
		{"Authority", func(c *Config) { c.Authority = "http://" }},
		{"Authority", func(c *Config) { c.Authority = "http://user:hunter2@app.internal" }},
		{"Authority", func(c *Config) { c.Authority = "http://app.internal?x=1" }},
		{"Authority", func(c *Config) { c.Authority = "http://user:hunter2@app.internal:x" }},
		{"APIKey", func(c *Config) { c.APIKey = "hunter2\n" }},
		{"Cache", func(c *Config) { c.Cache = "/nowhere/at/all/keys.json" }},
		{"Algorithms", func(c *Config) { c.Algorithms = []string{"HS256"} }},
		{"Algorithms", func(c *Config) { c.Algorithms = []string{} }},
		{"TrustedOrigins", func(c *Config) { c.TrustedOrigins = []string{"https://a.example/path"} }},
		{"LiveTimeout", func(c *Config) { c.LiveTimeout = -1 }},
		{"MaxKeyAge", func(c *Config) { c.MaxKeyAge = -1 }},
	} {
		c := good
		tc.change(&c)
		_, err := New(t.Context(), c)
		var e *ConfigError
		if !errors.As(err, &e) || e.Field != tc.field || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
	if _, err := NewLocal(good, Local{}); err == nil {
		t.Error("a local verifier without keys")
	}
}

func TestSEC123ConfigHidesTheAPIKey(t *testing.T) {
	c := Config{Issuer: testIssuer, APIKey: "cf_sk_secret"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{c, &c, struct{ C Config }{c}} {
			if s := fmt.Sprintf(format, x); strings.Contains(s, "secret") {
				t.Errorf("%s: %s", format, s)
			}
		}
	}
	if s := c.LogValue().String(); strings.Contains(s, "secret") || !strings.Contains(s, testIssuer) {
		t.Error(s)
	}
}
