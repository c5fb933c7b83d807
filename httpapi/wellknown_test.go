package httpapi_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
	"github.com/counterfoil/counterfoil/verify"
)

// SEC-115: the metadata says what is true and nothing else.
func TestSEC115Discovery(t *testing.T) {
	s := newSite(t, func(c *counterfoil.Config) { c.TokenLifetime = 90 * time.Second })
	d := s.wants(s.do(ask{method: "GET /.well-known/oauth-authorization-server"}), 200, `"response_types_supported":[]`, `"grant_types_supported":[]`, "!revocations", "!token_endpoint")
	if d.text("issuer") != issuer || fmt.Sprint(d.json["cf_max_token_lifetime"]) != "90" {
		t.Errorf("%s", d.Body)
	}
	// Every address in it is served.
	for name, value := range d.json {
		address, ok := value.(string)
		if !ok || name == "issuer" {
			continue
		}
		path, ok := strings.CutPrefix(address, issuer)
		if !ok {
			t.Errorf("%s: %s is not the issuer's", name, address)
		}
		if a := s.do(ask{method: "OPTIONS " + path, any: true}); a.Code != 204 {
			t.Errorf("%s: %s answers %d", name, path, a.Code)
		}
	}
}

func TestJWKS(t *testing.T) {
	s := newSite(t)
	a := s.wants(s.do(ask{method: "GET /.well-known/jwks.json?anything=1"}), 200, `"cf_version"`, `"kid"`, `!"d":`)
	h := a.Header()
	if h.Get("Content-Type") != "application/jwk-set+json" || h.Get("Cache-Control") != "public, max-age=300" || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%v", h)
	}
	if head := s.do(ask{method: "HEAD /.well-known/jwks.json"}); head.Code != 200 || head.Body.Len() > 0 || head.Header().Get("Content-Length") != h.Get("Content-Length") {
		t.Errorf("HEAD: %d %q %v", head.Code, head.Body, head.Header())
	}
}

// RFC 8414 section 3.1 for an issuer with a path, behind StripPrefix.
func TestIssuerWithPath(t *testing.T) {
	s := newSite(t, func(c *counterfoil.Config) { c.Issuer = "https://app.example/tenant/one" })
	s.wants(s.do(ask{method: "GET /.well-known/oauth-authorization-server/tenant/one"}), 200, `"jwks_uri":"https://app.example/tenant/one/.well-known/jwks.json"`)
	s.wants(s.do(ask{method: "GET /.well-known/oauth-authorization-server"}), 200)
	w := newRecorder()
	http.StripPrefix("/tenant/one", s.handler).ServeHTTP(w, newRequest("GET", "/tenant/one/.well-known/jwks.json"))
	if w.Code != 200 {
		t.Errorf("%d", w.Code)
	}
}

// A remote verifier lives on these handlers: keys, and live checks.
func TestRemoteVerifier(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Start()
	defer server.Close()
	s := newSite(t, func(c *counterfoil.Config) { c.Issuer = server.URL })
	server.Config.Handler = s.handlerOfServer()
	key := s.apiKey(counterfoil.NewAPIKey{Name: "orders", Scopes: []string{counterfoil.ScopeVerify}})
	v, err := verify.New(t.Context(), verify.Config{Issuer: server.URL, Audience: "app", APIKey: key, Clock: s.now, WithoutFeed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	grant, err := s.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want error, rules ...verify.Rule) {
		t.Helper()
		if _, err := v.Check(t.Context(), grant.AccessToken, rules...); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	check(nil)
	check(nil, verify.Live())
	if err := s.auth.RightsChanged(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	check(verify.ErrTokenStale, verify.Live())
	if err := s.auth.RevokeSession(t.Context(), grant.Session.ID, counterfoil.Revoked); err != nil {
		t.Fatal(err)
	}
	check(nil)
	check(verify.ErrTokenRevoked, verify.Live())
}

func (s *site) handlerOfServer() http.Handler {
	return httpapi.Handler(s.auth, httpapi.WithDirectory(s.users))
}

func (s *site) introspect(key, form string) *answer {
	s.Helper()
	return s.do(ask{method: "POST /oauth2/introspect", bearer: key, body: form, header: []string{"Content-Type", "", "Content-Type", "application/x-www-form-urlencoded"}})
}

// SEC-112: client authentication; inactive answers say no more than why.
func TestSEC112Introspection(t *testing.T) {
	s := newSite(t)
	verifier := s.apiKey(counterfoil.NewAPIKey{Name: "orders", Scopes: []string{counterfoil.ScopeVerify}})
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1","roles":["r"],"scope":["a","b"],"amr":["pwd"],"claims":{"plan":"x"}}`), 201)
	form := "token=" + made.text("access_token")
	s.wants(s.introspect(verifier, form), 200, `"active":true`, `"sub":"u1"`, `"sid":"`+made.sid()+`"`, `"client_id":"default"`, `"aud":"app"`, `"iss":"`+issuer+`"`,
		`"exp":`, `"iat":`, `"jti":`, `"scope":"a b"`, `"epoch":`, `"auth_time":`, `"amr":["pwd"]`, `"roles":["r"]`, `"token_type":"Bearer"`, "!cf_code")
	s.wants(s.introspect(verifier, form+"&token_type_hint=access_token&extra=1"), 200, `"active":true`)
	s.wants(s.introspect("", form), 401, "credential_missing")
	s.wants(s.introspect(s.apiKey(counterfoil.NewAPIKey{Name: "x", Scopes: []string{"sessions", "users"}}), form), 403, "insufficient_scope")
	s.wants(s.introspect(verifier, ""), 400, `"field":"token"`)
	s.wants(s.introspect(verifier, "token="), 400, `"field":"token"`)
	s.wants(s.introspect(verifier, form+"&"+form), 400, `"field":"token"`)
	s.wants(s.introspect(verifier, "token=%zz"), 400, `"field":"body"`)
	s.wants(s.do(ask{method: "POST /oauth2/introspect", bearer: verifier, body: `{"token":"x"}`}), 415, `"field":"Content-Type"`)
	inactive := func(token, code string) {
		t.Helper()
		if got := s.wants(s.introspect(verifier, "token="+url.QueryEscape(token)), 200).Body.String(); got != `{"active":false,"cf_code":"`+code+`"}`+"\n" {
			t.Errorf("SEC-112: %s", got)
		}
	}
	inactive("garbage", "token_invalid")
	inactive("\x00\xff", "token_invalid")
	inactive(made.text("session_token"), "token_invalid")
	s.wants(s.backend("POST /v1/users/u1/rights-changed", ""), 204)
	inactive(made.text("access_token"), "token_stale")
	s.wants(s.backend("DELETE /v1/sessions/"+made.sid(), ""), 204)
	inactive(made.text("access_token"), "token_revoked")
	s.forward(time.Hour)
	inactive(made.text("access_token"), "token_expired")
}

// SEC-125: whatever is wrong with a token, before its signature verifies the
// answer is one and the same.
func TestSEC125OneAnswerToTokenFaults(t *testing.T) {
	s, foreign := newSite(t), newSite(t, func(c *counterfoil.Config) { c.Issuer = "https://other.example" })
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201)
	token := made.text("access_token")
	parts := strings.Split(token, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	theirs, err := foreign.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	var same string
	for name, bad := range map[string]string{
		"empty": "", "garbage": "garbage", "dots": "..", "four parts": token + ".x", "padded": token + "=", "cut": token[:len(token)-1],
		"another payload":  parts[0] + "." + b64([]byte(`{"iss":"`+issuer+`","sub":"root"}`)) + "." + parts[2],
		"none":             b64([]byte(`{"alg":"none","typ":"at+jwt","kid":"x"}`)) + "." + parts[1] + ".",
		"an unknown kid":   b64([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"x"}`)) + "." + parts[1] + "." + parts[2],
		"a wrong type":     b64([]byte(`{"alg":"ES256","typ":"JWT","kid":"x"}`)) + "." + parts[1] + "." + parts[2],
		"another issuer":   theirs.AccessToken,
		"a session token":  made.text("session_token"),
		"an API key":       s.key,
		"too long":         strings.Repeat("x", 9000),
		"not base64":       "!!!.???.***",
		"a signature of 0": parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)),
	} {
		a := s.wants(s.do(ask{method: "GET /oauth2/userinfo", header: []string{"Authorization", "Bearer " + bad}}), 401, `"code":"token_invalid"`)
		answer := a.Body.String() + a.Header().Get("WWW-Authenticate")
		if same == "" {
			same = answer
		}
		if answer != same {
			t.Errorf("%s is told apart:\n%s\n%s", name, answer, same)
		}
	}
	s.wants(s.do(ask{method: "GET /oauth2/userinfo"}), 401, "credential_missing")
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", cookies: []string{"__Host-counterfoil-at=" + token}}), 401, "credential_missing")
	s.forward(time.Hour)
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: token}), 401, "token_expired")
}
