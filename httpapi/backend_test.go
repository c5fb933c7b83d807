package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// backend asks with the API key of all scopes.
func (s *site) backend(method, body string) *answer {
	s.Helper()
	return s.do(ask{method: method, body: body, bearer: s.key})
}

func TestCreateSession(t *testing.T) {
	s := newSite(t)
	epoch := fmt.Sprint(s.wants(s.backend("GET /v1/users/u%2F1/epoch", ""), 200).json["epoch"])
	then := s.now().Add(-time.Minute).Unix()
	made := s.wants(s.backend("POST /v1/sessions", fmt.Sprintf(`{"subject":"u/1","epoch":%s,"claims":{"plan":"gold","big":12345678901234567},
		"roles":["admin"],"scope":["orders:read","orders:write"],"amr":["pwd","otp"],"auth_time":%d,"max_age":3600,
		"device":{"user_agent":"Browser/2","ip":"198.51.100.9"},"client_id":"default"}`, epoch, then)),
		201, `"subject":"u/1"`, `"amr":["pwd","otp"]`, `"user_agent":"Browser/2"`, `"ip":"198.51.100.9"`, `"auth_time":`+strconv.FormatInt(then, 10), `"session_token":"cf_st_`, "!current")
	if made.setCookie(t) != nil {
		t.Error("a cookie was set for the backend itself")
	}
	c, err := http.ParseSetCookie(made.text("set_cookie"))
	if err != nil || c.Name != cookie || c.Value != made.text("session_token") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.SameSite != http.SameSiteLaxMode || c.MaxAge > 3600 || c.MaxAge < 3590 {
		t.Errorf("SEC-07: %v %v", c, err)
	}
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: made.text("access_token")}), 200,
		`"plan":"gold"`, `"roles":["admin"]`, `"scope":"orders:read orders:write"`, `"sub":"u/1"`)

	for _, tc := range []struct{ body, field string }{
		{`{}`, "subject"},
		{`{"subject":""}`, "subject"},
		{`{"subject":null}`, "subject"},
		{`{"subject":"a\u0000b"}`, "subject"},
		{`{"subject":"` + strings.Repeat("x", 256) + `"}`, "subject"},
		{`{"subject":["u"]}`, "subject"},
		{`{"subject":"u","epoch":"7"}`, "epoch"},
		{`{"subject":"u","epoch":0}`, "epoch"},
		{`{"subject":"u","epoch":-7}`, "epoch"},
		{`{"subject":"u","epoch":7.0}`, "epoch"},
		{`{"subject":"u","epoch":1e3}`, "epoch"},
		{`{"subject":"u","epoch":99999999999999999999999}`, "body"},
		{`{"subject":"u","claims":[]}`, "claims"},
		{`{"subject":"u","claims":{"sub":"v"}}`, "claims"},
		{`{"subject":"u","claims":{"SUB":"v"}}`, "claims"},
		{`{"subject":"u","claims":{"cf_x":1}}`, "claims"},
		{`{"subject":"u","claims":{"a":"` + strings.Repeat("x", 1100) + `"}}`, "claims"},
		{`{"subject":"u","claims":{"a":1,"a":2}}`, "body"},
		{`{"subject":"u","claims":{"a":{"b":1,"b":2}}}`, "body"},
		{`{"subject":"u","claims":` + strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20) + "}", "body"},
		{`{"subject":"u","roles":"admin"}`, "roles"},
		{`{"subject":"u","roles":[""]}`, "roles[0]"},
		{`{"subject":"u","roles":["a",null]}`, "roles[1]"},
		{`{"subject":"u","scope":"a b"}`, "scope"},
		{`{"subject":"u","scope":["a b"]}`, "scope[0]"},
		{`{"subject":"u","amr":[7]}`, "amr[0]"},
		{`{"subject":"u","amr":["PWD!"]}`, "amr[0]"},
		{`{"subject":"u","amr":["a","b","c","d","e","f","g","h","i"]}`, "amr"},
		{`{"subject":"u","auth_time":"now"}`, "auth_time"},
		{`{"subject":"u","auth_time":-1}`, "auth_time"},
		{`{"subject":"u","auth_time":9999999999999}`, "auth_time"},
		{`{"subject":"u","auth_time":0}`, "auth_time"},
		{`{"subject":"u","max_age":0}`, "max_age"},
		{`{"subject":"u","max_age":1}`, "max_age"},
		{`{"subject":"u","max_age":9223372036854775807}`, "max_age"},
		{`{"subject":"u","max_age":300000000}`, "max_age"},
		{`{"subject":"u","device":"phone"}`, "device"},
		{`{"subject":"u","device":{"ip":7}}`, "device.ip"},
		{`{"subject":"u","device":{"name":"x"}}`, "device.name"},
		{`{"subject":"u","client_id":"admin"}`, "client_id"},
		{`{"subject":"u","audience":"app"}`, "audience"},
		{`{"subject":"u","a b":1}`, `[\"a b\"]`},
		{`[]`, "body"},
		{`"x"`, "body"},
		{`{"subject":"u"}{}`, "body"},
		{`{"subject":"u"`, "body"},
		{`{"subject":"u",}`, "body"},
		{"{\"subject\":\"\xff\"}", "body"},
		{"\ufeff{}", "body"},
		{`{"subject":"\ud800"}`, "body"},
		{`nul`, "body"},
	} {
		s.wants(s.backend("POST /v1/sessions", tc.body), 400, `"code":"invalid_request"`, `"field":"`+tc.field+`"`)
	}
}

// A sign-in that checked an old password does not survive the change.
func TestCreateSessionWithOldEpoch(t *testing.T) {
	s := newSite(t)
	epoch := fmt.Sprint(s.wants(s.backend("GET /v1/users/u1/epoch", ""), 200).json["epoch"])
	s.wants(s.backend("DELETE /v1/users/u1/sessions?reason=password_changed", ""), 204)
	s.wants(s.backend("POST /v1/sessions", `{"subject":"u1","epoch":`+epoch+`}`), 409, `"code":"conflict"`, `"field":"epoch"`)
}

func TestAuthenticate(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201)
	st, at := made.text("session_token"), made.text("access_token")
	auth := func(body string) *answer {
		t.Helper()
		return s.backend("POST /v1/sessions/authenticate", body)
	}
	bySession, byAccess := `{"session_token":"`+st+`"}`, `{"access_token":"`+at+`"}`

	s.wants(auth(bySession), 200, made.sid(), `"access_token"`, `"expires_in"`, "!session_token")
	s.wants(auth(byAccess), 200, made.sid(), "!access_token")
	for _, tc := range []struct{ body, field string }{
		{`{}`, "session_token"},
		{`{"session_token":"` + st + `","access_token":"` + at + `"}`, "session_token"},
		{`{"session_token":"` + st + `","max_token_age":5}`, "max_token_age"},
		{`{"access_token":7}`, "access_token"},
	} {
		s.wants(auth(tc.body), 400, `"field":"`+tc.field+`"`)
	}
	s.wants(auth(`{"session_token":"garbage"}`), 401, "session_unknown", `"field":"session_token"`)
	s.wants(auth(`{"access_token":"garbage"}`), 401, "token_invalid", `"field":"access_token"`)
	s.wants(auth(`{"access_token":"`+st+`"}`), 401, "token_invalid", `"field":"access_token"`)

	s.forward(30 * time.Second)
	s.wants(auth(`{"access_token":"`+at+`","max_token_age":60}`), 200, "!access_token")
	s.wants(auth(`{"access_token":"`+at+`","max_token_age":10}`), 200, `"access_token"`)
	s.wants(s.backend("POST /v1/users/u1/rights-changed", ""), 204)
	s.wants(auth(byAccess), 200, `"access_token"`)
	s.forward(5 * time.Minute)
	s.wants(auth(byAccess), 200, `"access_token"`)
	s.forward(10 * time.Minute)
	s.wants(auth(byAccess), 401, "token_expired", `"field":"access_token"`)

	admin := s.apiKey(counterfoil.NewAPIKey{Name: "other", ClientID: "admin"})
	s.wants(s.do(ask{method: "POST /v1/sessions/authenticate", bearer: admin, body: bySession}), 401, "session_unknown")
	fresh := auth(bySession).text("access_token")
	s.wants(s.do(ask{method: "POST /v1/sessions/authenticate", bearer: admin, body: `{"access_token":"` + fresh + `"}`}), 401, "token_invalid")

	s.wants(s.backend("DELETE /v1/sessions/"+made.sid()+"?reason=banned", ""), 204)
	s.wants(auth(bySession), 401, "session_revoked", `"reason":"banned"`, `"sid":"`+made.sid()+`"`, `"ended_at"`)
	s.wants(auth(`{"access_token":"`+fresh+`"}`), 401, `"field":"access_token"`)
}

func TestSessionOfBackend(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1","roles":["a"]}`), 201)
	path := "/v1/sessions/" + made.sid()
	s.wants(s.backend("GET "+path, ""), 200, `"status":"active"`)
	s.wants(s.backend("HEAD "+path, ""), 200)

	says := func(fragments ...string) {
		t.Helper()
		fresh := s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: made.text("session_token")}), 200)
		s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: fresh.text("access_token")}), 200, fragments...)
	}
	says(`"roles":["a"]`)
	s.wants(s.backend("PATCH "+path, `{"roles":["b"],"claims":{"plan":"gold"}}`), 200)
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: made.text("access_token")}), 401, "token_stale")
	says(`"roles":["b"]`, `"plan":"gold"`)
	s.wants(s.backend("PATCH "+path, `{"scope":["x"]}`), 200)
	says(`"roles":["b"]`, `"plan":"gold"`, `"scope":"x"`)
	s.wants(s.backend("PATCH "+path, `{"roles":[],"claims":null}`), 200)
	says("!roles", "!plan", `"scope":"x"`)
	s.wants(s.backend("PATCH "+path, `{"max_age":120}`), 200)
	for _, tc := range []struct{ body, field string }{
		{``, "body"}, {`{}`, "body"}, {`{"roles":"a"}`, "roles"}, {`{"claims":{"iss":1}}`, "claims"},
		{`{"max_age":0}`, "max_age"}, {`{"max_age":null}`, "body"}, {`{"subject":"u2"}`, "subject"}, {`{"sid":"x"}`, "sid"},
	} {
		s.wants(s.backend("PATCH "+path, tc.body), 400, `"field":"`+tc.field+`"`)
	}
	s.wants(s.backend("DELETE "+path+"?reason=Not+Good", ""), 400, `"field":"reason"`)
	s.wants(s.backend("DELETE "+path+"?why=x", ""), 400, `"field":"query"`)
	s.wants(s.backend("DELETE "+path+"?reason=a&reason=b", ""), 400, `"field":"reason"`)
	s.wants(s.backend("DELETE "+path, `{"reason":"x"}`), 400, `"field":"reason"`)
	s.wants(s.backend("DELETE "+path, ""), 204)
	s.wants(s.backend("DELETE "+path, ""), 204)
	s.wants(s.backend("PATCH "+path, `{"roles":["c"]}`), 409, "conflict", `"field":"sid"`)
	s.wants(s.backend("GET "+path, ""), 200, `"status":"revoked"`, `"reason":"revoked"`, `"actor":"`)
	s.wants(s.backend("GET /v1/sessions/0123456789abcdefghijklmn", ""), 404, "not_found")
	s.wants(s.backend("GET /v1/sessions/..%2f..%2fetc", ""), 404, "not_found")
	s.wants(s.backend("DELETE /v1/sessions/x", ""), 404, "not_found")
	s.wants(s.backend("PATCH /v1/sessions/x", `{"roles":[]}`), 404, "not_found")
}

// SEC-108: an API key reaches the sessions of its own application only.
func TestSEC108OtherApplication(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201)
	admin := s.apiKey(counterfoil.NewAPIKey{Name: "other", ClientID: "admin"})
	path := "/v1/sessions/" + made.sid()
	for _, a := range []ask{{method: "GET " + path}, {method: "PATCH " + path, body: `{"roles":["root"]}`}, {method: "DELETE " + path}} {
		a.bearer = admin
		s.wants(s.do(a), 404, `"code":"not_found"`)
	}
	s.wants(s.do(ask{method: "GET /v1/users/u1/sessions?status=all", bearer: admin}), 200, `"sessions":[]`)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: made.text("session_token")}), 200)
	other := s.wants(s.do(ask{method: "POST /v1/sessions", bearer: admin, body: `{"subject":"u1"}`}), 201, `"client_id":"admin"`, `__Host-counterfoil-admin=`)
	s.wants(s.backend("GET /v1/users/u1/sessions", ""), 200, made.sid(), "!"+other.sid())
	// A user is one across all applications.
	s.wants(s.do(ask{method: "DELETE /v1/users/u1/sessions", bearer: admin}), 204)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: made.text("session_token")}), 401, "session_revoked")
}

func TestUserSessions(t *testing.T) {
	s := newSite(t)
	var sids []string
	for range 3 {
		sids = append(sids, s.wants(s.backend("POST /v1/sessions", `{"subject":"auth0|7/x"}`), 201).sid())
	}
	path := "/v1/users/auth0%7C7%2Fx/sessions"
	s.wants(s.backend("GET "+path, ""), 200, sids...)
	page := s.wants(s.backend("GET "+path+"?limit=2", ""), 200, sids[2], sids[1], "!"+sids[0])
	s.wants(s.backend("GET "+path+"?limit=2&after="+page.text("next"), ""), 200, sids[0], "!next")
	for _, tc := range []struct{ query, field string }{
		{"limit=0", "limit"}, {"limit=1001", "limit"}, {"limit=-1", "limit"}, {"limit=x", "limit"}, {"limit=99999999999999999999", "limit"}, {"limit=", "limit"},
		{"after=nonsense", "after"}, {"status=gone", "status"}, {"page=2", "query"}, {"limit=1&limit=2", "limit"}, {"%zz", "query"}, {"after=%ff", "after"}, {"a;b", "query"},
	} {
		s.wants(s.backend("GET "+path+"?"+tc.query, ""), 400, `"field":"`+tc.field+`"`)
	}
	s.wants(s.backend("DELETE "+path+"?except="+sids[1]+"&reason=password_changed", ""), 204)
	s.wants(s.backend("GET "+path, ""), 200, sids[1], "!"+sids[0], "!"+sids[2])
	s.wants(s.backend("GET "+path+"?status=all", ""), 200, sids[0], `"reason":"password_changed"`)
	s.wants(s.backend("GET /v1/users/%00/sessions", ""), 400, `"field":"id"`)
	s.wants(s.backend("GET /v1/users/"+strings.Repeat("x", 300)+"/epoch", ""), 400, `"field":"id"`)
	s.wants(s.backend("DELETE /v1/users/%00/sessions", ""), 400, `"field":"id"`)
}

func TestUsers(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/users", `{"email":"Ann@example.org","password":"`+goodWord+`","roles":["a"],"scope":["x"]}`),
		201, `"email":"Ann@example.org"`, `"roles":["a"]`, `"disabled":false`, "!password", "!argon2id")
	path := "/v1/users/" + made.text("id")
	bob := s.wants(s.backend("POST /v1/users", `{"email":"bob@example.org"}`), 201, `"roles":[]`)
	s.wants(s.backend("POST /v1/users", `{"email":"ann@EXAMPLE.org"}`), 409, "conflict", `"field":"email"`)
	for _, tc := range []struct{ body, field string }{
		{`{}`, "email"}, {`{"email":"nobody"}`, "email"}, {`{"email":["a@b.c"]}`, "email"}, {`{"email":"c@d.example","password":"short"}`, "password"},
		{`{"email":"c@d.example","password":7}`, "password"}, {`{"email":"c@d.example","roles":[""]}`, "roles[0]"}, {`{"email":"c@d.example","admin":true}`, "admin"},
	} {
		s.wants(s.backend("POST /v1/users", tc.body), 400, `"field":"`+tc.field+`"`)
	}
	s.wants(s.backend("GET "+path, ""), 200, `"id":"`+made.text("id")+`"`)
	s.wants(s.backend("GET /v1/users", ""), 200, "Ann@example.org", "bob@example.org")
	page := s.wants(s.backend("GET /v1/users?limit=1", ""), 200, "Ann@", "!bob@")
	s.wants(s.backend("GET /v1/users?limit=1&after="+page.text("next"), ""), 200, "bob@", "!next")
	s.wants(s.backend("GET /v1/users?after=nonsense~", ""), 400, `"field":"after"`)
	s.wants(s.backend("GET /v1/users?limit=0", ""), 400, `"field":"limit"`)
	s.wants(s.backend("GET /v1/users?email=ANN@example.org", ""), 200, "Ann@", "!bob@")
	s.wants(s.backend("GET /v1/users?email=carl@example.org", ""), 200, `"users":[]`)
	s.wants(s.backend("GET /v1/users?email=carl", ""), 400, `"field":"email"`)
	s.wants(s.backend("GET /v1/users?email=ann@example.org&limit=2", ""), 400, `"field":"email"`)

	in := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: strings.Replace(credentials("ann@example.org"), "}", `,"transport":"body"}`, 1)}), 200)
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: in.text("access_token")}), 200, `"roles":["a"]`, `"scope":"x"`)
	s.wants(s.backend("PATCH "+path, `{"roles":["b","c"]}`), 200, `"roles":["b","c"]`, `"scope":["x"]`)
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: in.text("access_token")}), 401, "token_stale")
	s.wants(s.backend("PATCH "+path, `{"email":"bob@example.org"}`), 409, "conflict")
	for _, tc := range []struct{ body, field string }{
		{``, "body"}, {`{}`, "body"}, {`{"roles":null}`, "roles"}, {`{"email":null}`, "email"}, {`{"disabled":null}`, "disabled"}, {`{"disabled":"yes"}`, "disabled"},
		{`{"password":"` + goodWord + `"}`, "password"}, {`{"id":"x"}`, "id"},
	} {
		s.wants(s.backend("PATCH "+path, tc.body), 400, `"field":"`+tc.field+`"`)
	}
	s.wants(s.backend("PATCH "+path, `{"disabled":true}`), 200, `"disabled":true`)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: in.text("session_token")}), 401, "account_disabled")
	s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: credentials("ann@example.org")}), 401, "invalid_credentials")
	s.wants(s.backend("POST /v1/sessions", `{"subject":"`+made.text("id")+`"}`), 409, "conflict", `"field":"subject"`)

	s.wants(s.backend("DELETE "+path, ""), 204)
	s.wants(s.backend("DELETE "+path, ""), 404, "not_found")
	s.wants(s.backend("GET "+path, ""), 404)
	s.wants(s.backend("PATCH "+path, `{"roles":[]}`), 404)
	s.wants(s.backend("POST "+path+"/password-reset", ""), 404)
	s.wants(s.backend("POST /v1/users/"+bob.text("id")+"/password-reset", "{}"), 201)
	s.wants(s.backend("GET /v1/users/%00", ""), 400, `"field":"id"`)
	s.wants(s.backend("GET /v1/users/x", ""), 404)
}

// routes of the document that ask for an API key, with the scope.
func keyed(s *site) map[string]string {
	routes := map[string]string{}
	for path, methods := range s.doc.Paths {
		for method, op := range methods {
			for _, one := range op.Security {
				if scope, ok := one["apiKey"]; ok {
					routes[strings.ToUpper(method)+" "+parameter.ReplaceAllString(path, "0123456789abcdefghijklmn")] = scope[0]
				}
			}
		}
	}
	return routes
}

// Each route of the backend, against each scope and each bad key: default deny.
func TestAPIKeys(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	keys := map[string]string{}
	for _, scope := range counterfoil.BackendScopes {
		keys[scope] = s.apiKey(counterfoil.NewAPIKey{Name: scope, Scopes: []string{scope}})
	}
	expired := s.apiKey(counterfoil.NewAPIKey{Name: "expired", ExpiresAt: s.now().Add(time.Minute)})
	revoked, key, err := s.auth.CreateAPIKey(ctx, counterfoil.NewAPIKey{Name: "revoked"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.auth.RevokeAPIKey(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	s.forward(2 * time.Minute)
	user := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201)
	bad := map[string]string{
		"garbage": "cf_sk_garbage", "nothing": "x", "expired": expired, "revoked": revoked.Reveal(),
		"wrong checksum": s.key[:len(s.key)-1] + "!", "wrong secret": withChecksum(s.key[:len(s.key)-7] + flip(s.key[len(s.key)-7])),
		"unknown": withChecksum("cf_sk_" + strings.Repeat("A", 67)), "a session token": user.text("session_token"), "an access token": user.text("access_token"),
	}
	routes := keyed(s)
	if len(routes) < 15 {
		t.Fatalf("only %d routes ask for a key", len(routes))
	}
	var same string
	for route, scope := range routes {
		s.wants(s.do(ask{method: route}), 401, `"code":"credential_missing"`, "cf_sk_…")
		s.wants(s.do(ask{method: route, header: []string{"Authorization", "Basic YTpi"}}), 401, `"code":"credential_missing"`)
		s.wants(s.do(ask{method: route, cookies: []string{cookie + "=" + user.text("session_token")}}), 401, `"code":"credential_missing"`)
		s.wants(s.do(ask{method: route, header: []string{"Authorization", "Bearer " + s.key, "Authorization", "Bearer " + s.key}}), 401, `"code":"credential_ambiguous"`)
		for name, text := range bad {
			a := s.wants(s.do(ask{method: route, bearer: text}), 401, `"code":"token_invalid"`)
			// SEC-125: one answer to every fault.
			body := a.Body.String() + a.Header().Get("WWW-Authenticate")
			if same == "" {
				same = body
			}
			if body != same {
				t.Errorf("SEC-125: %s: %s key is told apart:\n%s\n%s", route, name, body, same)
			}
		}
		for has, text := range keys {
			a := s.do(ask{method: route, bearer: text})
			if has != scope {
				s.wants(a, 403, `"code":"insufficient_scope"`, `"scope":"`+scope+`"`)
			} else if a.Code == 401 || a.Code == 403 {
				t.Errorf("%s refuses the scope %s: %s", route, has, a.Body)
			}
		}
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// Answers are what they are documented to be also when all members are there.
func TestNumbersInClaimsStay(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1","claims":{"n":1.50,"list":[1,"a",null,{"b":true}]}}`), 201)
	info := s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: made.text("access_token")}), 200)
	text, _ := json.Marshal(info.json["list"])
	if string(text) != `[1,"a",null,{"b":true}]` {
		t.Errorf("%s", text)
	}
}
