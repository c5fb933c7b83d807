package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/passkeytest"
)

// browser is a browser with an authenticator and a jar of cookies.
type browser struct {
	*site
	key *passkeytest.Authenticator
	jar map[string]string
}

func (s *site) browser() *browser {
	return &browser{site: s, key: passkeytest.New(issuer), jar: map[string]string{}}
}

func (b *browser) call(method, body string) *answer {
	b.Helper()
	var cookies []string
	for name, value := range b.jar {
		cookies = append(cookies, name+"="+value)
	}
	a := b.do(ask{method: method, body: body, cookies: cookies, header: []string{"Origin", issuer, "Sec-Fetch-Site", "same-origin"}})
	for _, c := range a.Result().Cookies() {
		b.jar[c.Name] = c.Value
	}
	return a
}

// begin is what the server wants of navigator.credentials.
func (b *browser) begin(method, body string) json.RawMessage {
	b.Helper()
	a := b.wants(b.call(method, body), 200, `"publicKey":{"`)
	if a.Header().Get("Cache-Control") != "private, no-store" {
		b.Errorf("%s: Cache-Control %q", method, a.Header().Get("Cache-Control"))
	}
	c := a.setCookie(b)
	if c == nil || c.Name != directory.CeremonyCookie || !strings.Contains(a.Header().Get("Set-Cookie"), "; Path=/; Max-Age=300; HttpOnly; Secure; SameSite=Strict") {
		b.Errorf("%s: cookie %s", method, a.Header().Get("Set-Cookie"))
	}
	text, err := json.Marshal(a.object("publicKey"))
	if err != nil {
		b.Fatal(err)
	}
	return text
}

func (b *browser) create(options json.RawMessage) string {
	b.Helper()
	text, err := b.key.Create(options, nil)
	if err != nil {
		b.Fatal(err)
	}
	return `"credential":` + string(text)
}

func (b *browser) get(options json.RawMessage, change func(*passkeytest.Answer)) string {
	b.Helper()
	text, err := b.key.Get(options, change)
	if err != nil {
		b.Fatal(err)
	}
	return `"credential":` + string(text)
}

func (b *browser) passkeySignUp(email string) *answer {
	b.Helper()
	options := b.begin("POST /v1/auth/passkeys/sign-up/begin", `{"email":"`+email+`"}`)
	return b.wants(b.call("POST /v1/auth/passkeys/sign-up", "{"+b.create(options)+"}"), 201, `"amr":["pop","user","mfa"]`, "!session_token")
}

func TestPasskeyRoutes(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	up := b.passkeySignUp("ann@example.org")
	old := b.jar[cookie]
	if !strings.HasPrefix(old, "cf_st_") {
		t.Fatalf("no session cookie: %v", b.jar)
	}
	// Sign-in, in place of the session of before (SEC-11).
	in := b.wants(b.call("POST /v1/auth/passkeys/sign-in", "{"+b.get(b.begin("POST /v1/auth/passkeys/sign-in/begin", "{}"), nil)+"}"), 200, `"amr":["pop","user","mfa"]`)
	if in.sid() == up.sid() || in.subject() != up.subject() {
		t.Errorf("signed in to %s of %s, before %s of %s", in.sid(), in.subject(), up.sid(), up.subject())
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: []string{cookie + "=" + old}}), 401, `"reason":"replaced"`)
	native := b.wants(b.call("POST /v1/auth/passkeys/sign-in", `{"transport":"body",`+b.get(b.begin("POST /v1/auth/passkeys/sign-in/begin", ""), nil)+"}"), 200, `"session_token":"cf_st_`)

	list := b.wants(b.call("GET /v1/auth/passkeys", ""), 200, `"name":"Passkey 1"`, `"backed_up":false`)
	first := list.json["passkeys"].([]any)[0].(map[string]any)["id"].(string)
	b.wants(b.call("DELETE /v1/auth/passkeys/"+first, ""), 409, `"code":"conflict"`, "last way to sign in")
	added := b.wants(b.call("POST /v1/auth/passkeys", `{"name":"Key",`+b.create(b.begin("POST /v1/auth/passkeys/begin", "{}"))+"}"), 201, `"name":"Key"`, `"last_used_at":0`)
	b.wants(b.call("PATCH /v1/auth/passkeys/"+first, `{"name":"Phone"}`), 200, `"name":"Phone"`)
	b.wants(b.call("PATCH /v1/auth/passkeys/"+first, `{}`), 400, `"field":"name"`)
	b.wants(b.call("PATCH /v1/auth/passkeys/nobody", `{"name":"x"}`), 404)
	b.wants(b.call("DELETE /v1/auth/passkeys/"+first, ""), 204)
	b.wants(b.call("DELETE /v1/auth/passkeys/"+first, ""), 404, "There is no such passkey.")
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", bearer: native.text("session_token")}), 401, `"reason":"passkey_removed"`)
	b.wants(b.call("GET /v1/auth/passkeys", ""), 200, added.text("id"), "!"+first)

	// SEC-18: after ten minutes the user proves again who they are.
	s.forward(11 * time.Minute)
	for _, method := range []string{"POST /v1/auth/passkeys/begin", "DELETE /v1/auth/passkeys/" + added.text("id")} {
		a := b.wants(b.call(method, ""), 401, `"code":"insufficient_user_authentication"`)
		if challenge := a.Header().Get("WWW-Authenticate"); !strings.Contains(challenge, "max_age") || !strings.Contains(challenge, "600") {
			t.Errorf("%s: challenge %q, want max_age 600 (RFC 9470)", method, challenge)
		}
	}
	options := b.begin("POST /v1/auth/step-up/begin", "{}")
	b.wants(b.call("POST /v1/auth/step-up", "{"+b.get(options, nil)+"}"), 200, `"amr":["pop","user","mfa"]`)
	b.begin("POST /v1/auth/passkeys/begin", "{}")
}

func TestPasskeyRefusals(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	b.passkeySignUp("ann@example.org")
	b.wants(b.call("POST /v1/auth/passkeys/sign-up/begin", `{"email":"ANN@example.org"}`), 409, `"code":"conflict"`, `"field":"email"`)
	for _, body := range []string{`{}`, `{"credential":null}`, `{"credential":{}}`, `{"credential":"x"}`, `{"credential":{"id":1}}`} {
		for _, path := range []string{"sign-in", "sign-up"} {
			b.wants(b.call("POST /v1/auth/passkeys/"+path, body), 400, `"field":"credential"`)
		}
	}
	begin := func() json.RawMessage { return b.begin("POST /v1/auth/passkeys/sign-in/begin", "{}") }
	credential := b.get(begin(), nil)
	b.wants(b.call("POST /v1/auth/passkeys/sign-in", `{"client_id":"stranger",`+credential+"}"), 400, `"field":"client_id"`)
	b.wants(b.call("POST /v1/auth/passkeys/sign-in", "{"+credential+"}"), 200)
	b.wants(b.call("POST /v1/auth/passkeys/sign-in", "{"+credential+"}"), 400, `"field":"credential"`, "begin again") // SEC-93
	// SEC-125: one answer to whatever is wrong with a passkey.
	unknown := b.wants(b.call("POST /v1/auth/passkeys/sign-in", "{"+b.get(begin(), func(a *passkeytest.Answer) { a.Handle = []byte("0123456789abcdefghijklmn") })+"}"), 401, `"code":"invalid_credentials"`)
	wrong := b.wants(b.call("POST /v1/auth/passkeys/sign-in", "{"+b.get(begin(), func(a *passkeytest.Answer) { a.Origin = "https://evil.example" })+"}"), 401)
	if unknown.Body.String() != wrong.Body.String() || strings.Contains(wrong.Body.String(), "password") {
		t.Errorf("told apart, or of a password:\n%s%s", unknown.Body, wrong.Body)
	}
	b.wants(b.call("POST /v1/auth/step-up", `{}`), 400, `"field":"password"`)
	b.wants(b.call("POST /v1/auth/step-up", `{"password":"x",`+credential+`}`), 400, `"field":"credential"`)
	b.wants(b.call("POST /v1/auth/step-up", `{"password":"x"}`), 401, `"code":"invalid_credentials"`)

	// A user with a password only, and one whom another system keeps.
	up := s.signUp("ben@example.org")
	s.wants(s.do(ask{method: "POST /v1/auth/step-up/begin", bearer: up.text("session_token")}), 200, `"publicKey":null`, `"password":true`)
	elsewhere := s.wants(s.do(ask{method: "POST /v1/sessions", bearer: s.key, body: `{"subject":"elsewhere"}`}), 201).text("session_token")
	for _, method := range []string{"GET /v1/auth/passkeys", "POST /v1/auth/passkeys/begin", "POST /v1/auth/step-up/begin"} {
		s.wants(s.do(ask{method: method, bearer: elsewhere}), 404)
	}
}

// Two begun in two tabs do not disturb each other, since the browser keeps
// its cookie.
func TestPasskeyCeremonyCookieIsKept(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	b.passkeySignUp("ann@example.org")
	first := b.begin("POST /v1/auth/passkeys/sign-in/begin", "{}")
	kept := b.jar[directory.CeremonyCookie]
	second := b.begin("POST /v1/auth/passkeys/sign-in/begin", "{}")
	if b.jar[directory.CeremonyCookie] != kept || !strings.HasPrefix(kept, "cf_ce_") {
		t.Errorf("cookie %q became %q", kept, b.jar[directory.CeremonyCookie])
	}
	for _, options := range []json.RawMessage{second, first} {
		b.wants(b.call("POST /v1/auth/passkeys/sign-in", "{"+b.get(options, nil)+"}"), http.StatusOK)
	}
}
