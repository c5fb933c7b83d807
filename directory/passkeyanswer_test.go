package directory_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/passkeytest"
)

type answer = passkeytest.Answer

// clientDataWith makes client data of the right members and some more text.
func clientDataWith(w *answer, more string) []byte {
	return []byte(`{"type":"` + w.Type + `","challenge":"` + w.Challenge + `","origin":"` + w.Origin + `","crossOrigin":false` + more + `}`)
}

func otherKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// wrongEverywhere are the fields that both ceremonies check.
var wrongEverywhere = map[string]func(*answer){
	"type": func(w *answer) { w.Type = "webauthn.other" },
	"type of the other kind": func(w *answer) {
		w.Type = map[string]string{"webauthn.get": "webauthn.create", "webauthn.create": "webauthn.get"}[w.Type]
	},
	"challenge":              func(w *answer) { w.Challenge = strings.Repeat("A", 43) },
	"challenge, short":       func(w *answer) { w.Challenge = w.Challenge[:22] },
	"challenge, padded":      func(w *answer) { w.Challenge += "=" },
	"challenge, empty":       func(w *answer) { w.Challenge = "" },
	"origin":                 func(w *answer) { w.Origin = "https://app.example.evil.test" },
	"origin, below":          func(w *answer) { w.Origin = "https://sub.app.example" },
	"origin, port":           func(w *answer) { w.Origin = "https://app.example:444" },
	"origin, default port":   func(w *answer) { w.Origin = "https://app.example:443" },
	"origin, scheme":         func(w *answer) { w.Origin = "http://app.example" },
	"origin, letter case":    func(w *answer) { w.Origin = "https://APP.example" },
	"origin, path":           func(w *answer) { w.Origin = "https://app.example/" },
	"origin, user":           func(w *answer) { w.Origin = "https://u@app.example" },
	"origin, null":           func(w *answer) { w.Origin = "null" },
	"origin, empty":          func(w *answer) { w.Origin = "" },
	"cross origin":           func(w *answer) { w.CrossOrigin = true },
	"top origin":             func(w *answer) { w.CrossOrigin, w.TopOrigin = true, "https://app.example" },
	"top origin alone":       func(w *answer) { w.TopOrigin = "https://app.example" },
	"rp id":                  func(w *answer) { w.RPID = "example" },
	"user presence":          func(w *answer) { w.Flags &^= passkeytest.UserPresent },
	"user verification":      func(w *answer) { w.Flags &^= passkeytest.UserVerified },
	"backup state":           func(w *answer) { w.Flags |= passkeytest.BackedUp },
	"reported id":            func(w *answer) { w.ReportedID = make([]byte, 32) },
	"kind of credential":     func(w *answer) { w.Members = map[string]any{"type": "password"} },
	"raw id":                 func(w *answer) { w.Members = map[string]any{"rawId": "AAAAAAAAAAAAAAAAAAAAAA"} },
	"duplicate origin":       func(w *answer) { w.ClientData = clientDataWith(w, `,"origin":"https://app.example"`) },
	"folded origin":          func(w *answer) { w.ClientData = clientDataWith(w, `,"Origin":"https://app.example"`) },
	"client data, trailing":  func(w *answer) { w.ClientData = append(clientDataWith(w, ""), "{}"...) },
	"client data, no object": func(w *answer) { w.ClientData = []byte(`"x"`) },
}

func TestSEC94SignInWithOneFieldWrong(t *testing.T) {
	wrong := map[string]func(*answer){
		"flags":              func(w *answer) { w.Flags |= 0x40 },
		"backup eligibility": func(w *answer) { w.Flags |= passkeytest.BackupEligible },
		"user handle":        func(w *answer) { w.Handle = []byte(opaque.NewID()) },
		"no user handle":     func(w *answer) { w.Handle = nil },
		"odd user handle":    func(w *answer) { w.Handle = []byte("'; --") },
		"key":                func(w *answer) { w.Key = otherKey() },
		"signature":          func(w *answer) { w.Tamper = func(s []byte) []byte { s[len(s)-1] ^= 1; return s } },
		"no signature":       func(w *answer) { w.Tamper = func([]byte) []byte { return nil } },
		"signature, longer":  func(w *answer) { w.Tamper = func(s []byte) []byte { return append(s, 0) } },
		// DER of r = s = 0: CVE-2022-21449.
		"signature, zeros": func(w *answer) { w.Tamper = func([]byte) []byte { return []byte{0x30, 6, 2, 1, 0, 2, 1, 0} } },
	}
	for name, change := range wrongEverywhere {
		wrong[name] = change
	}
	e := setup(t, nil)
	b := e.browser()
	_, u := b.signUp("ann@example.com")
	for name, change := range wrong {
		t.Run(name, func(t *testing.T) {
			_, err := b.signIn(change)
			var field *counterfoil.FieldError
			if !errors.Is(err, counterfoil.ErrInvalidCredentials) && (!errors.As(err, &field) || field.Field != "credential") {
				t.Errorf("got error %v, want it refused", err)
			}
		})
	}
	// More members than today's are no fault (section 5.8.1.1).
	if _, err := b.signIn(func(w *answer) { w.ClientData = clientDataWith(w, `,"other_keys_can_be_added_here":"x"`) }); err != nil {
		t.Errorf("with one more member: %v", err)
	}
	if g, err := b.signIn(nil); err != nil || g.Session.Subject != u.ID {
		t.Errorf("with nothing wrong: %v", err)
	}
}

func TestSEC94NewPasskeyWithOneFieldWrong(t *testing.T) {
	key := otherKey()
	point, _ := key.PublicKey.Bytes()
	x, y := point[1:33], point[33:]
	odd := make([]byte, 256)
	odd[0], odd[255] = 0x80, 1
	exponent := []byte{1, 0, 1}
	wrong := map[string]func(*answer){
		"algorithm":       func(w *answer) { w.Algorithm = -35 }, // ES384
		"algorithm, RS1":  func(w *answer) { w.PublicKey = passkeytest.RSAKey(-65535, odd, exponent) },
		"curve":           func(w *answer) { w.PublicKey = passkeytest.EC2Key(-7, 2, x, y) },
		"point":           func(w *answer) { w.PublicKey = passkeytest.EC2Key(-7, 1, x, x) },
		"point, short":    func(w *answer) { w.PublicKey = passkeytest.EC2Key(-7, 1, x[:31], y) },
		"RSA, 1024 bits":  func(w *answer) { w.PublicKey = passkeytest.RSAKey(-257, odd[128:], exponent) },
		"RSA, 1 bit":      func(w *answer) { w.PublicKey = passkeytest.RSAKey(-257, append(make([]byte, 255), 1), exponent) },
		"RSA, even":       func(w *answer) { w.PublicKey = passkeytest.RSAKey(-257, append(odd[:255:255], 2), exponent) },
		"RSA, exponent 1": func(w *answer) { w.PublicKey = passkeytest.RSAKey(-257, odd, []byte{1}) },
		"RSA, 8192 bits": func(w *answer) {
			w.PublicKey = passkeytest.RSAKey(-257, append(odd[:255:255], append(make([]byte, 768), 1)...), exponent)
		},
		"key, no map":      func(w *answer) { w.PublicKey = []byte{0} },
		"key, and more":    func(w *answer) { w.PublicKey = append(passkeytest.EC2Key(-7, 1, x, y), 0) },
		"id, short":        func(w *answer) { w.ID = w.ID[:15]; w.ReportedID = w.ID },
		"id, long":         func(w *answer) { w.ID = make([]byte, 1024); w.ReportedID = w.ID },
		"no attested data": func(w *answer) { w.Flags &^= 0x40 },
	}
	for name, change := range wrongEverywhere {
		wrong[name] = change
	}
	e := setup(t, nil)
	b := e.browser()
	g, u := b.signUp("ann@example.com")
	for name, change := range wrong {
		t.Run(name, func(t *testing.T) {
			_, err := b.AddPasskey(t.Context(), g.SessionToken.Reveal(), "", b.create(b.beginAdd(g), change), b.request())
			wantField(t, err, "credential")
		})
	}
	if now, err := e.Get(t.Context(), u.ID); err != nil || len(now.Passkeys) != 1 {
		t.Errorf("now %d passkeys, %v; want the one of before", len(now.Passkeys), err)
	}
	// No attestation is asked for, and none is looked at.
	options := b.beginAdd(g)
	if _, err := b.AddPasskey(t.Context(), g.SessionToken.Reveal(), "", b.create(options, func(w *answer) { w.Format = "packed" }), b.request()); err != nil {
		t.Errorf("a format of attestation that was not asked for: %v", err)
	}
}

func TestSEC93CeremoniesAreUsedOnce(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	b.signUp("ann@example.com")
	t.Run("replay", func(t *testing.T) {
		credential := b.get(b.beginSignIn(), nil)
		if _, err := b.finishSignIn(credential); err != nil {
			t.Fatal(err)
		}
		_, err := b.finishSignIn(credential)
		wantField(t, err, "credential")
	})
	t.Run("consumed before it is verified", func(t *testing.T) {
		options := b.beginSignIn()
		_, err := b.finishSignIn(b.get(options, func(w *answer) { w.Origin = "https://evil.test" }))
		wantIs(t, "the wrong one", err, counterfoil.ErrInvalidCredentials)
		_, err = b.finishSignIn(b.get(options, nil))
		wantField(t, err, "credential")
	})
	t.Run("in another browser", func(t *testing.T) {
		credential := b.get(b.beginSignIn(), nil)
		thief := e.browser()
		_, err := thief.finishSignIn(credential)
		wantField(t, err, "credential")
		thief.beginSignIn()
		credential = b.get(b.beginSignIn(), nil)
		_, err = thief.finishSignIn(credential)
		wantField(t, err, "credential")
		_, err = b.finishSignIn(credential) // the attempt used it up
		wantField(t, err, "credential")
	})
	t.Run("two cookies", func(t *testing.T) {
		credential := b.get(b.beginSignIn(), nil)
		r := b.request()
		r.AddCookie(&http.Cookie{Name: directory.CeremonyCookie, Value: b.cookie.Value})
		_, err := b.SignInWithPasskey(t.Context(), directory.SignIn{Credential: credential, Request: r})
		wantField(t, err, "credential")
		_, err = b.SignInWithPasskey(t.Context(), directory.SignIn{Credential: b.get(b.beginSignIn(), nil)})
		wantField(t, err, "credential")
	})
	t.Run("after five minutes", func(t *testing.T) {
		credential := b.get(b.beginSignIn(), nil)
		e.clock.advance(5 * time.Minute)
		_, err := b.finishSignIn(credential)
		wantField(t, err, "credential")
	})
	t.Run("a challenge of the client's own (CVE-2026-28787)", func(t *testing.T) {
		b.beginSignIn()
		_, err := b.signIn(func(w *answer) { w.Challenge = strings.Repeat("x", 42) + "A" })
		wantField(t, err, "credential")
	})
	t.Run("of another kind", func(t *testing.T) {
		g, err := b.signIn(nil)
		if err != nil {
			t.Fatal(err)
		}
		token := g.SessionToken.Reveal()
		ways, err := b.BeginStepUp(t.Context(), token, b.request())
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.finishSignIn(b.get(ways.Passkey.Options, nil))
		wantField(t, err, "credential")
		_, err = b.StepUpWithPasskey(t.Context(), token, b.get(b.beginSignIn(), nil), b.request())
		wantField(t, err, "credential")
		known := *b.auth // the making of another passkey forgets this one
		options := b.begun(b.BeginPasskeySignUp(t.Context(), "new@example.com", b.request()))
		_, err = b.AddPasskey(t.Context(), token, "", b.create(options, nil), b.request())
		wantField(t, err, "credential")
		*b.auth = known
	})
	t.Run("two tabs", func(t *testing.T) {
		first, second := b.beginSignIn(), b.beginSignIn()
		for _, options := range []json.RawMessage{first, second} {
			if _, err := b.finishSignIn(b.get(options, nil)); err != nil {
				t.Errorf("one of two tabs: %v", err)
			}
		}
	})
	t.Run("in parallel", func(t *testing.T) {
		for range 20 {
			credential := b.get(b.beginSignIn(), nil)
			r := b.request()
			var all sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				all.Go(func() {
					_, errs[i] = b.SignInWithPasskey(context.Background(), directory.SignIn{Credential: credential, Request: r.Clone(context.Background())})
				})
			}
			all.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else {
					wantField(t, err, "credential")
				}
			}
			if won != 1 {
				t.Fatalf("%d of 8 sign-ins with one answer went through", won)
			}
		}
	})
}

func TestSEC93PasskeysOfOthers(t *testing.T) {
	e := setup(t, nil)
	ann, ben := e.browser(), e.browser()
	_, annUser := ann.signUp("ann@example.com")
	benGrant, benUser := ben.signUp("ben@example.com")
	t.Run("one's passkey with the other's handle", func(t *testing.T) {
		_, err := ben.signIn(func(w *answer) { w.Handle = []byte(annUser.ID) })
		wantIs(t, "sign-in", err, counterfoil.ErrInvalidCredentials)
		_, err = ben.signIn(func(w *answer) { w.Handle, w.ReportedID = ann.auth.Handle, ann.auth.ID })
		wantIs(t, "sign-in", err, counterfoil.ErrInvalidCredentials)
	})
	t.Run("step-up in a session of another user", func(t *testing.T) {
		token := benGrant.SessionToken.Reveal()
		begin := func() json.RawMessage {
			ways, err := ben.BeginStepUp(t.Context(), token, ben.request())
			if err != nil {
				t.Fatal(err)
			}
			ben.cookie = ways.Passkey.Cookie
			return ways.Passkey.Options
		}
		_, err := ben.StepUpWithPasskey(t.Context(), token, ann.get(begin(), nil), ben.request())
		wantIs(t, "step-up", err, counterfoil.ErrInvalidCredentials)
		_, err = ben.StepUpWithPasskey(t.Context(), token, ann.get(begin(), func(w *answer) { w.Handle = nil }), ben.request())
		wantIs(t, "step-up without handle", err, counterfoil.ErrInvalidCredentials)
		_, err = ben.StepUpWithPasskey(t.Context(), token, ben.get(begin(), func(w *answer) { w.Handle = []byte(annUser.ID) }), ben.request())
		wantIs(t, "step-up with another's handle", err, counterfoil.ErrInvalidCredentials)
		// In another session of the same user.
		second, err := ben.signIn(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ben.StepUpWithPasskey(t.Context(), second.SessionToken.Reveal(), ben.get(begin(), nil), ben.request())
		wantField(t, err, "credential")
		// A security key leaves the handle out when it was asked for by id.
		g, err := ben.StepUpWithPasskey(t.Context(), token, ben.get(begin(), func(w *answer) { w.Handle = nil }), ben.request())
		if err != nil || g.Session.Subject != benUser.ID {
			t.Errorf("the user's own: %v", err)
		}
	})
	t.Run("a passkey made for another session", func(t *testing.T) {
		annGrant, err := ann.signIn(nil)
		if err != nil {
			t.Fatal(err)
		}
		options := ann.beginAdd(annGrant)
		benGrant, err := ben.signIn(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ann.AddPasskey(t.Context(), benGrant.SessionToken.Reveal(), "", ben.create(options, nil), ann.request())
		wantField(t, err, "credential")
	})
}

func TestPasskeyAnswersThatCannotBeRead(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	for name, text := range map[string]string{
		"empty": "", "no JSON": "x", "no object": "[]", "nothing in it": "{}", "twice": `{"id":"a","id":"b"}`,
		"trailing": "{}{}", "deep": strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), "long": `{"a":"` + strings.Repeat("x", 33<<10) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.finishSignIn([]byte(text))
			wantField(t, err, "credential")
			_, _, err = b.SignUpWithPasskey(t.Context(), directory.SignIn{Credential: []byte(text), Request: b.request()})
			wantField(t, err, "credential")
		})
	}
}
