package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

func TestSEC71Register(t *testing.T) {
	s := newSite(t)
	b := s.signedUp("ann@example.org")
	if b.offer.path != "dbsc/register" || !strings.HasPrefix(b.offer.authorization, b.sid) {
		t.Errorf("offer %+v", b.offer)
	}
	good := b.proof(b.registration())
	b.took(b.register(good))
	s.wants(s.do(ask{method: "GET /v1/auth/session", cookies: b.cookies()}), 200, `"bound":true`)
	s.wants(s.do(ask{method: "GET /v1/sessions/" + b.sid, bearer: s.key}), 200, `"bound":true`)
	b.alive()

	// The offer is good once: not for the same proof, its twin signature, or another key.
	for _, proof := range []string{good, twin(t, good), b.proof(b.registration())} {
		if a := s.wants(b.register(proof), 403, "proof_required"); a.setCookie(t) != nil || a.Header().Get("Secure-Session-Challenge") != "" {
			t.Error("the offer was taken up twice")
		}
	}
	thief := *b
	thief.key = newKey(t)
	s.wants(thief.register(thief.proof(thief.registration())), 403)
	b.alive()
}

func TestSEC71OfferIsForBrowsersOfThisSignIn(t *testing.T) {
	s := newSite(t)
	none := func(what string, a *answer) *answer {
		t.Helper()
		if a.Header().Get("Secure-Session-Registration") != "" {
			t.Errorf("%s: offered", what)
		}
		return a
	}
	none("a token in the body", s.signUp("native@example.org"))
	b := s.signedUp("ann@example.org")
	none("a refresh", s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 200))
	none("a failed sign-in", s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: `{"email":"ann@example.org","password":"not it at all, sorry"}`}), 401))

	// With a step-up the session token is replaced, and the offer with it.
	up := s.wants(s.do(ask{method: "POST /v1/auth/step-up", cookies: b.cookies(), body: `{"password":"` + goodWord + `"}`}), 200)
	old := b.proof(b.registration())
	b.token = up.setCookie(t).Value
	s.wants(b.register(old), 403)
	b.offer = offerOf(t, up.Header())
	b.took(b.register(b.proof(b.registration())))
	none("a step-up of a bound session", s.wants(s.do(ask{method: "POST /v1/auth/step-up", cookies: b.cookies(), body: `{"password":"` + goodWord + `"}`}), 200, `"bound":true`))

	// Switched off, nothing is offered, taken or asked for.
	off := newSite(t, func(c *counterfoil.Config) { c.DeviceBinding.Off = true })
	none("switched off", off.wants(off.do(ask{method: "POST /v1/auth/sign-up", body: credentials("ann@example.org")}), 201))
}

func TestSEC71BadRegistrations(t *testing.T) {
	s := newSite(t)
	s.freeze()
	b, other := s.signedUp("ann@example.org"), s.signedUp("ben@example.org")
	header, payload := b.registration()
	otherHeader, otherPayload := other.registration()
	jwk := header["jwk"].(fields)
	for name, proof := range map[string]string{
		"none at all":                 "",
		"no token":                    "hello",
		"unsigned":                    segment(with(header, fields{"alg": "none"})) + "." + segment(payload) + ".",
		"alg none, signed":            b.proof(with(header, fields{"alg": "none"}), payload),
		"HS256":                       b.proof(with(header, fields{"alg": "HS256"}), payload),
		"RS256":                       b.proof(with(header, fields{"alg": "RS256"}), payload),
		"EdDSA":                       b.proof(with(header, fields{"alg": "EdDSA"}), payload),
		"alg twice":                   b.proof(`{"alg":"none","alg":"ES256","typ":"dbsc+jwt"}`, payload),
		"crit":                        b.proof(with(header, fields{"crit": []string{"b64"}}), payload),
		"an access token's typ":       b.proof(with(header, fields{"typ": "at+jwt"}), payload),
		"no typ":                      b.proof(with(header, fields{"typ": nil}), payload),
		"no key":                      b.proof(with(header, fields{"jwk": nil}), payload),
		"a key that is text":          b.proof(with(header, fields{"jwk": "key"}), payload),
		"a symmetric key":             b.proof(with(header, fields{"jwk": fields{"kty": "oct", "k": "c2VjcmV0"}}), payload),
		"a private key":               b.proof(with(header, fields{"jwk": with(jwk, fields{"d": "AAAA"})}), payload),
		"another curve":               b.proof(with(header, fields{"jwk": with(jwk, fields{"crv": "P-384"})}), payload),
		"off the curve":               b.proof(with(header, fields{"jwk": with(jwk, fields{"x": jwk["y"]})}), payload),
		"another key's":               b.proof(with(header, fields{"jwk": other.jwk()}), payload),
		"no jti":                      b.proof(header, with(payload, fields{"jti": nil})),
		"another's challenge":         b.proof(header, with(payload, fields{"jti": otherPayload["jti"]})),
		"a made-up challenge":         b.proof(header, with(payload, fields{"jti": strings.Repeat("0", 48)})),
		"no authorization":            b.proof(header, with(payload, fields{"authorization": nil})),
		"the challenge instead":       b.proof(header, with(payload, fields{"authorization": b.sid + b.offer.challenge})),
		"another's":                   other.proof(otherHeader, otherPayload),
		"another's, signed":           b.proof(header, otherPayload),
		"aud elsewhere":               b.proof(header, with(payload, fields{"aud": "https://evil.example/v1/auth/dbsc/register"})),
		"aud another call":            b.proof(header, with(payload, fields{"aud": issuer + "/v1/auth/dbsc/refresh"})),
		"aud no address":              b.proof(header, with(payload, fields{"aud": "::"})),
		"a payload that is no object": b.proof(header, `["jti"]`),
	} {
		a := s.wants(b.register(proof), 403, `"code":"proof_required"`)
		if a.setCookie(t) != nil || a.Header().Get("Secure-Session-Challenge") != "" {
			t.Errorf("%s: taken", name)
		}
		if stored, err := s.auth.Session(t.Context(), b.sid); err != nil || stored.Binding != nil {
			t.Fatalf("%s: bound (%v)", name, err)
		}
	}
	b.alive()
	proof := b.proof(header, with(payload, fields{"aud": issuer + "/v1/auth/dbsc/register", "iat": 1, "key": fields{}}))
	s.wants(s.do(ask{method: "POST /v1/auth/dbsc/register", header: []string{"Secure-Session-Response", proof}}), 401, "credential_missing")
	s.wants(s.do(ask{method: "POST /v1/auth/dbsc/register", cookies: b.cookies(), header: []string{"Secure-Session-Response", proof, "Secure-Session-Response", proof}}), 403)
	s.forward(5*time.Minute - time.Second)
	b.took(b.register(`"` + proof + `"`)) // in quotes, as the draft has it

	late := s.signedUp("late@example.org")
	s.forward(5 * time.Minute)
	s.wants(late.register(late.proof(late.registration())), 403)
}

func TestSEC71Renewal(t *testing.T) {
	s := newSite(t)
	s.freeze()
	b, other := s.boundUser("ann@example.org"), s.boundUser("ben@example.org")
	// The first time without a proof, as browsers do; then with the challenge.
	b.refused(b.renew("", b.cookies()...))
	first := b.proof(b.answer())
	b.took(b.renew(first, b.cookies()...))
	// Used once: not again, nor its twin.
	b.refused(b.renew(first, b.cookies()...))
	b.refused(b.renew(twin(t, first), b.cookies()...))
	// The challenge of the 200, without any cookie, in quotes.
	b.took(b.renew(`"` + b.proof(b.answer()) + `"`))

	header, payload := b.answer()
	for name, proof := range map[string]string{
		"no token":            "hello",
		"unsigned":            segment(with(header, fields{"alg": "none"})) + "." + segment(payload) + ".",
		"HS256":               b.proof(with(header, fields{"alg": "HS256"}), payload),
		"typ":                 b.proof(with(header, fields{"typ": "JWT"}), payload),
		"jti twice":           b.proof(header, `{"jti":"x","jti":"`+b.challenge+`"}`),
		"another's challenge": b.proof(header, fields{"jti": other.challenge}),
		"another's proof":     other.proof(other.answer()),
		"the offer":           b.proof(b.registration()),
		"aud elsewhere":       b.proof(header, with(payload, fields{"aud": "https://evil.example/v1/auth/dbsc/refresh"})),
	} {
		challenge := b.challenge
		b.refused(b.renew(proof, b.cookies()...))
		if t.Failed() {
			t.Fatal(name)
		}
		b.alive()
		b.challenge = challenge
	}
	b.took(b.renew(b.proof(with(header, fields{"kid": "1", "jwk": other.jwk()}), with(payload, fields{"aud": issuer + "/v1/auth/dbsc/refresh"})), b.cookies()...))

	// Too old: eleven minutes after it was given. The browser was away.
	s.forward(11 * time.Minute)
	b.refused(b.renew(b.proof(b.answer()), b.cookies()...))
	b.took(b.renew(b.proof(b.answer()), b.cookies()...))

	for _, id := range []string{"", "short", strings.Repeat("x", 24) + "!"} {
		s.wants(s.do(ask{method: "POST /v1/auth/dbsc/refresh", header: []string{"Sec-Secure-Session-Id", id}}), 400, `"field":"Sec-Secure-Session-Id"`)
	}
	unknown := *b
	unknown.sid = strings.Repeat("x", 24)
	s.wants(unknown.renew("", b.cookies()...), 401, "session_unknown")
	unbound := s.signedUp("cleo@example.org")
	s.wants(unbound.renew("", unbound.cookies()...), 401, "session_unknown")
	unbound.alive()
}

// A signature by another key ends the session of whoever sent its token along:
// that one session, and nobody else's.
func TestSEC71AnotherKeyEndsTheSession(t *testing.T) {
	s := newSite(t)
	b, other := s.boundUser("ann@example.org"), s.boundUser("ben@example.org")
	thief := *b
	thief.key = newKey(t)
	thief.refused(thief.renew(thief.proof(thief.answer()))) // the sid is public
	thief.refused(thief.renew(thief.proof(thief.answer()), other.cookies()...))
	b.alive()
	other.alive()
	s.wants(thief.renew(thief.proof(thief.answer()), thief.cookies()[0]), 401, `"code":"session_revoked"`, `"reason":"device_key_mismatch"`)
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 401, "session_revoked", "device_key_mismatch")
	s.wants(s.do(ask{method: "GET /oauth2/userinfo", bearer: b.access}), 401, "token_revoked")
	s.wants(b.renew(b.proof(b.answer()), b.cookies()...), 401, "device_key_mismatch")
	other.alive()
}

func TestSEC71OneProofOfManyAtOnce(t *testing.T) {
	s := newSite(t)
	b := s.signedUp("ann@example.org")
	once := func(send func() *answer) {
		t.Helper()
		var good, refused atomic.Int32
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				switch a := send(); a.Code {
				case 200:
					good.Add(1)
				case 403:
					refused.Add(1)
				default:
					t.Errorf("%d %s", a.Code, a.Body)
				}
			})
		}
		wait.Wait()
		if good.Load() != 1 || refused.Load() != 7 {
			t.Errorf("%d taken and %d refused, want 1 and 7", good.Load(), refused.Load())
		}
	}
	registration := b.proof(b.registration())
	once(func() *answer { return b.register(registration) })
	for range 5 {
		b.challenged(b.renew("", b.cookies()...))
		proof := b.proof(b.answer())
		once(func() *answer { return b.renew(proof, b.cookies()...) })
	}
}

// What is wrong here keeps the browser's key: 503, never 401 or 429.
func TestSEC71StoreAway(t *testing.T) {
	s := newSite(t)
	b := s.boundUser("ann@example.org")
	s.handler = httpapi.Handler(s.broken(), httpapi.WithDirectory(s.users))
	s.wants(b.renew(b.proof(b.answer()), b.cookies()...), 503, "unavailable")
	s.wants(b.register(b.proof(b.registration())), 503, "unavailable")
}

func TestSEC71SwitchedOff(t *testing.T) {
	s := newSite(t)
	b := s.boundUser("ann@example.org")
	s.forward(time.Hour)
	config := s.auth.Config()
	config.DeviceBinding.Off = true
	off, err := counterfoil.New(t.Context(), s.db.Store(t), config)
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	s.handler = httpapi.Handler(off, httpapi.WithDirectory(s.users))
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 200)
	b.refused(b.renew("", b.cookies()...)) // the browser keeps its key meanwhile
	b.took(b.renew(b.proof(b.answer()), b.cookies()...))
}

// A second seal secret in front does not take cookies and challenges away.
func TestSEC71AnotherSeal(t *testing.T) {
	s := newSite(t)
	b := s.boundUser("ann@example.org")
	s.forward(2 * time.Minute)
	config := s.auth.Config()
	config.Seal = counterfoil.SealText("bmV3LXNlYWwtbmV3LXNlYWwtbmV3LXNlYWwtbmV3LXM=," + secret64)
	node, err := counterfoil.New(t.Context(), s.db.Store(t), config)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	s.handler = httpapi.Handler(node, httpapi.WithDirectory(s.users))
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 200)
	b.took(b.renew(b.proof(b.answer()), b.cookies()...))
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 200)
	// A node that has not the new one yet asks for another proof, and takes it.
	s.handler = httpapi.Handler(s.auth, httpapi.WithDirectory(s.users))
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: b.cookies()}), 401, "proof_required")
	b.refused(b.renew(b.proof(b.answer()), b.cookies()...))
	b.took(b.renew(b.proof(b.answer()), b.cookies()...))
}

// Each application at a host has a bound cookie of its own.
func TestSEC71TwoApplications(t *testing.T) {
	s := newSite(t)
	b := s.boundUser("ann@example.org")
	in := s.wants(s.do(ask{method: "POST /v1/auth/sign-in", body: strings.Replace(credentials("ann@example.org"), "}", `,"client_id":"admin"}`, 1)}), 200)
	admin := &softBrowser{site: s, key: newKey(t), sid: in.sid(), token: in.setCookie(t).Value, offer: offerOf(t, in.Header())}
	jar := append(b.cookies(), cookie+"-admin="+admin.token)
	a := s.wants(s.do(ask{method: "POST /v1/auth/dbsc/register", cookies: jar, header: []string{"Secure-Session-Response", admin.proof(admin.registration())}}), 200)
	c := a.setCookie(t)
	if c.Name != boundName+"-admin" || !strings.Contains(a.Body.String(), `"name":"`+boundName+`-admin"`) {
		t.Fatalf("%s\n%s", c.Raw, a.Body)
	}
	jar = append(jar, c.String())
	admin.challenged(a)
	for range 2 {
		a = s.wants(admin.renew(admin.proof(admin.answer()), jar...), 200)
		admin.challenged(a)
		b.took(b.renew(b.proof(b.answer()), jar...))
	}
	s.forward(2 * time.Minute)
	for _, cookies := range [][]string{
		{cookie + "-admin=" + admin.token, boundName + "-admin=" + a.setCookie(t).Value},
		b.cookies(),
	} {
		s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: cookies}), 200)
	}
	s.wants(s.do(ask{method: "POST /v1/auth/refresh", cookies: []string{cookie + "-admin=" + admin.token, boundName + "=" + b.bound}}), 401, "proof_required")
}

// The offer names the call relative to the address of the sign-in, whatever
// path that has outside.
func TestSEC71OfferUnderAnyPrefix(t *testing.T) {
	s := newSite(t)
	device := httpapi.Device(s.auth, httpapi.WithDirectory(s.users))
	s.signedUp("ann@example.org")
	for _, at := range []struct{ outside, stripped string }{
		{"https://app.example/auth/sign-in", "/auth"},
		{"https://app.example/v1/auth/sign-in", "/v1/auth"},
		{"https://app.example/sign-in", ""},
		{"https://app.example/shop/auth/sign-in", "/shop/auth"}, // the proxy strips /shop
	} {
		r := httptest.NewRequest("POST", at.outside, strings.NewReader(credentials("ann@example.org")))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		http.StripPrefix(at.stripped, device).ServeHTTP(w, r)
		base, err := url.Parse(at.outside)
		if err != nil {
			t.Fatal(err)
		}
		to, err := base.Parse(offerOf(t, w.Header()).path)
		if want := strings.TrimSuffix(at.outside, "/sign-in") + "/dbsc/register"; err != nil || to.String() != want {
			t.Errorf("%s: offered at %s, want %s", at.outside, to, want)
		}
	}
}

// FuzzProof: whatever a browser sends, nothing breaks, and no session is
// bound, renewed or ended by it.
func FuzzProof(f *testing.F) {
	s := newSite(f)
	b := s.boundUser("ann@example.org")
	free := s.signedUp("ben@example.org")
	used := b.proof(b.answer())
	b.took(b.renew(used, b.cookies()...))
	f.Add(used, b.sid)
	f.Add(free.proof(b.registration()), `"`+b.sid+`"`)
	f.Add(`"`, `""`)
	f.Add("a.b.c", free.sid)
	f.Fuzz(func(t *testing.T, proof, id string) {
		for _, path := range []string{"register", "refresh"} {
			r := httptest.NewRequest("POST", issuer+"/v1/auth/dbsc/"+path, nil)
			r.Header["Secure-Session-Response"] = []string{proof}
			r.Header["Sec-Secure-Session-Id"] = []string{id}
			r.Header["Cookie"] = append(b.cookies()[:1:1], cookie+"-admin="+free.token)
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			if w.Code < 400 || w.Code >= 500 || w.Code == 429 || w.Header().Get("Set-Cookie") != "" {
				t.Fatalf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		for _, sid := range []string{b.sid, free.sid} {
			if one, err := s.auth.Session(t.Context(), sid); err != nil || one.End != nil || (one.Binding != nil) != (sid == b.sid) {
				t.Fatalf("%+v, %v", one, err)
			}
		}
	})
}
