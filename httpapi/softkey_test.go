package httpapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"regexp"
	"testing"

	"github.com/counterfoil/counterfoil"
)

const boundName = cookie + "-bound"

// softBrowser is what a browser with a key in software knows and does.
type softBrowser struct {
	*site
	key       *ecdsa.PrivateKey
	sid       string
	token     string // the session cookie
	bound     string // the bound cookie
	access    string
	challenge string // the last one it was given
	offer     offer
}

// offer is what Secure-Session-Registration says.
type offer struct{ path, challenge, authorization string }

var (
	offerForm     = regexp.MustCompile(`^\(ES256\);path="([^"]+)";challenge="([0-9a-f]{48})";authorization="([0-9A-Za-z]{72})"$`)
	challengeForm = regexp.MustCompile(`^"([0-9a-f]{48})";id="([0-9A-Za-z]{24})"$`)
)

func offerOf(t testing.TB, h http.Header) offer {
	t.Helper()
	m := offerForm.FindStringSubmatch(h.Get("Secure-Session-Registration"))
	if m == nil {
		t.Fatalf("offer %q", h.Get("Secure-Session-Registration"))
	}
	return offer{m[1], m[2], m[3]}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signedUp is a new user in a browser that has not registered its key yet.
func (s *site) signedUp(email string) *softBrowser {
	s.Helper()
	up := s.wants(s.do(ask{method: "POST /v1/auth/sign-up", body: credentials(email)}), 201, `!"bound"`)
	return &softBrowser{site: s, key: newKey(s), sid: up.sid(), token: up.setCookie(s).Value, access: up.text("access_token"), offer: offerOf(s, up.Header())}
}

// boundUser has registered it.
func (s *site) boundUser(email string) *softBrowser {
	s.Helper()
	b := s.signedUp(email)
	b.took(b.register(b.proof(b.registration())))
	return b
}

func segment(v any) string {
	text, ok := v.(string)
	if !ok {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		text = string(raw)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// proof signs any header and payload.
func (b *softBrowser) proof(header, payload any) string {
	b.Helper()
	text := segment(header) + "." + segment(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, b.key, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

type fields = map[string]any

// with is fields with some changed; a nil value takes one out.
func with(f fields, change fields) fields {
	f = maps.Clone(f)
	maps.Copy(f, change)
	maps.DeleteFunc(f, func(_ string, v any) bool { return v == nil })
	return f
}

func (b *softBrowser) jwk() fields {
	point, err := b.key.PublicKey.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	return fields{"kty": "EC", "crv": "P-256", "x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}
}

func (b *softBrowser) registration() (header, payload fields) {
	return fields{"alg": "ES256", "typ": "dbsc+jwt", "jwk": b.jwk()}, fields{"jti": b.offer.challenge, "authorization": b.offer.authorization}
}

func (b *softBrowser) answer() (header, payload fields) {
	return fields{"alg": "ES256", "typ": "dbsc+jwt"}, fields{"jti": b.challenge}
}

// cookies are those that it sends.
func (b *softBrowser) cookies() []string {
	out := []string{cookie + "=" + b.token}
	if b.bound != "" {
		out = append(out, boundName+"="+b.bound)
	}
	return out
}

func (b *softBrowser) register(proof string) *answer {
	b.Helper()
	return b.do(ask{method: "POST /v1/auth/dbsc/register", cookies: b.cookies(), header: []string{"Secure-Session-Response", proof}})
}

func (b *softBrowser) renew(proof string, cookies ...string) *answer {
	b.Helper()
	header := []string{"Sec-Secure-Session-Id", b.sid}
	if proof != "" {
		header = append(header, "Secure-Session-Response", proof)
	}
	return b.do(ask{method: "POST /v1/auth/dbsc/refresh", cookies: cookies, header: header})
}

// took takes cookie and challenge from an answer that must bring both.
func (b *softBrowser) took(a *answer) {
	b.Helper()
	b.wants(a, 200, `"session_identifier":"`+b.sid+`"`, `"refresh_url":"refresh"`, `"include_site":false`, `"attributes":"Path=/; Secure; HttpOnly; SameSite=Lax"`)
	c := a.setCookie(b)
	if c == nil || a.Code != 200 {
		b.Fatalf("no cookie: %s", a.Body)
	}
	if c.Name != boundName || c.Path != "/" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "" || c.MaxAge != 600 {
		b.Errorf("SEC-07: cookie %s", c.Raw)
	}
	b.bound = c.Value
	b.challenged(a)
}

// challenged takes the challenge, which must be there.
func (b *softBrowser) challenged(a *answer) {
	b.Helper()
	m := challengeForm.FindStringSubmatch(a.Header().Get("Secure-Session-Challenge"))
	if m == nil || m[2] != b.sid {
		b.Fatalf("%d, challenge %q", a.Code, a.Header().Get("Secure-Session-Challenge"))
	}
	b.challenge = m[1]
}

// refused wants a 403 with another challenge.
func (b *softBrowser) refused(a *answer) {
	b.Helper()
	b.wants(a, 403, `"code":"proof_required"`)
	if a.setCookie(b) != nil {
		b.Error("a cookie for a bad proof")
	}
	before := b.challenge
	b.challenged(a)
	if b.challenge == before {
		b.Log("the challenge is the same")
	}
}

// alive wants the session to go on.
func (b *softBrowser) alive() {
	b.Helper()
	if s, err := b.auth.Session(b.Context(), b.sid); err != nil || s.End != nil || s.Status(b.now()) != counterfoil.StatusActive {
		b.Errorf("the session ended: %+v, %v", s.End, err)
	}
}

// twin is the second signature that ECDSA has for the same text.
func twin(t testing.TB, proof string) string {
	t.Helper()
	i := len(proof) - base64.RawURLEncoding.EncodedLen(64)
	raw, err := base64.RawURLEncoding.DecodeString(proof[i:])
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(raw[32:])
	s.Sub(elliptic.P256().Params().N, s)
	s.FillBytes(raw[32:])
	return proof[:i] + base64.RawURLEncoding.EncodeToString(raw)
}
