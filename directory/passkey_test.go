package directory_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/passkeytest"
)

// browser is one browser with one authenticator and the ceremony cookie.
type browser struct {
	*env
	auth   *passkeytest.Authenticator
	cookie *http.Cookie
	ip     string
}

func (e *env) browser() *browser {
	return &browser{env: e, auth: passkeytest.New("https://app.example"), ip: "192.0.2.7"}
}

// request is one that brings the cookie.
func (b *browser) request() *http.Request {
	r := from(b.ip)
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	return r
}

// begun keeps the cookie and gives the options.
func (b *browser) begun(c *directory.PasskeyCeremony, err error) json.RawMessage {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	b.cookie = c.Cookie
	return c.Options
}

func (b *browser) create(options json.RawMessage, change func(*passkeytest.Answer)) []byte {
	b.t.Helper()
	credential, err := b.auth.Create(options, change)
	if err != nil {
		b.t.Fatal(err)
	}
	return credential
}

func (b *browser) get(options json.RawMessage, change func(*passkeytest.Answer)) []byte {
	b.t.Helper()
	credential, err := b.auth.Get(options, change)
	if err != nil {
		b.t.Fatal(err)
	}
	return credential
}

func (b *browser) beginSignIn() json.RawMessage {
	b.t.Helper()
	return b.begun(b.BeginPasskeySignIn(context.Background(), b.request()))
}

func (b *browser) finishSignIn(credential []byte) (*counterfoil.Grant, error) {
	return b.SignInWithPasskey(context.Background(), directory.SignIn{Credential: credential, Request: b.request()})
}

func (b *browser) signIn(change func(*passkeytest.Answer)) (*counterfoil.Grant, error) {
	b.t.Helper()
	return b.finishSignIn(b.get(b.beginSignIn(), change))
}

func (b *browser) signUp(email string) (*counterfoil.Grant, directory.User) {
	b.t.Helper()
	options := b.begun(b.BeginPasskeySignUp(context.Background(), email, b.request()))
	g, u, err := b.SignUpWithPasskey(context.Background(), directory.SignIn{Credential: b.create(options, nil), Request: b.request()})
	if err != nil {
		b.t.Fatal(err)
	}
	return g, u
}

func (b *browser) beginAdd(g *counterfoil.Grant) json.RawMessage {
	b.t.Helper()
	return b.begun(b.BeginAddPasskey(context.Background(), g.SessionToken.Reveal(), b.request()))
}

// add gives the user of a session one more passkey.
func (b *browser) add(g *counterfoil.Grant, name string) directory.Passkey {
	b.t.Helper()
	p, err := b.AddPasskey(context.Background(), g.SessionToken.Reveal(), name, b.create(b.beginAdd(g), nil), b.request())
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	var wrong *counterfoil.FieldError
	if !errors.As(err, &wrong) || wrong.Field != field {
		t.Errorf("got error %v, want one of the field %s", err, field)
	}
}

func wantIs(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func TestPasskeySignUpAndSignIn(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	g, u := b.signUp(" Ann@Example.com ")
	if u.Email != "Ann@Example.com" || len(u.Passkeys) != 1 || u.Passkeys[0].Name != "Passkey 1" || u.Password != "" {
		t.Errorf("made %+v", u)
	}
	if got := u.Passkeys[0].Transports; !slices.Equal(got, []string{"hybrid", "internal"}) {
		t.Errorf("kept the transports %q, want the known ones", got)
	}
	if want := []string{"pop", "user", "mfa"}; !slices.Equal(g.Session.Methods, want) || !g.Session.AuthTime.Equal(e.clock.now()) {
		t.Errorf("amr %q at %s, want %q now", g.Session.Methods, g.Session.AuthTime, want)
	}
	e.clock.advance(1e9)
	g, err := b.signIn(nil)
	if err != nil {
		t.Fatal(err)
	}
	if g.Session.Subject != u.ID || !slices.Equal(g.Session.Methods, []string{"pop", "user", "mfa"}) {
		t.Errorf("signed in as %s with %q, want %s", g.Session.Subject, g.Session.Methods, u.ID)
	}
	stored, err := e.Get(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p := stored.Passkeys[0]; !p.LastUsedAt.Equal(e.clock.now()) || p.CreatedAt.Equal(p.LastUsedAt) {
		t.Errorf("kept as %+v, want it used now", p)
	}
	// Without a password there is nothing to guess.
	wantIs(t, "password", e.try("ann@example.com", goodPassword, "192.0.2.9"), counterfoil.ErrInvalidCredentials)
}

func TestSEC91PasskeySignUpSaysWhatSignUpSays(t *testing.T) {
	e := setup(t, nil)
	e.user("ann@example.com")
	b := e.browser()
	_, byPasskey := b.BeginPasskeySignUp(t.Context(), "ANN@example.com", b.request())
	_, _, byPassword := e.SignUp(t.Context(), directory.SignIn{Email: "ANN@example.com", Password: otherPassword, Request: from("192.0.2.8")})
	for what, err := range map[string]error{"passkey": byPasskey, "password": byPassword} {
		wantIs(t, what, err, counterfoil.ErrConflict)
		wantIs(t, what, err, directory.ErrEmailTaken)
	}
	// Taken between beginning and end.
	options := b.begun(b.BeginPasskeySignUp(t.Context(), "ben@example.com", b.request()))
	e.user("ben@example.com")
	_, _, err := b.SignUpWithPasskey(t.Context(), directory.SignIn{Credential: b.create(options, nil), Request: b.request()})
	wantIs(t, "taken meanwhile", err, directory.ErrEmailTaken)
	_, err = b.BeginPasskeySignUp(t.Context(), "no address", b.request())
	wantField(t, err, "email")
	for range 60 {
		_, err = b.BeginPasskeySignUp(t.Context(), "ann@example.com", b.request())
	}
	var limited *counterfoil.RateLimitedError
	if !errors.As(err, &limited) {
		t.Errorf("the 60th asked address: got %v, want it throttled", err)
	}
}

func TestSEC95SignInOptionsNameNobody(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	read := func() map[string]any {
		var o map[string]any
		if err := json.Unmarshal(b.beginSignIn(), &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	before := read()
	b.signUp("ann@example.com")
	after := read()
	for _, o := range []map[string]any{before, after} {
		if list := o["allowCredentials"].([]any); len(list) != 0 {
			t.Errorf("got credentials %v, want none", list)
		}
		raw, err := base64.RawURLEncoding.DecodeString(o["challenge"].(string))
		if err != nil || len(raw) < 16 {
			t.Errorf("challenge %q: want 16 bytes or more (SEC-93)", o["challenge"])
		}
		if o["userVerification"] != "required" || o["rpId"] != "app.example" || o["timeout"] != 300000.0 {
			t.Errorf("got options %v", o)
		}
	}
	if before["challenge"] == after["challenge"] {
		t.Error("one challenge came twice")
	}
	if c := b.cookie; !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" ||
		c.MaxAge != 300 || !strings.HasPrefix(c.Name, "__Host-") {
		t.Errorf("got cookie %s", c)
	}
}

func TestPasskeyCreationOptions(t *testing.T) {
	e := setup(t, func(c *directory.Config) { c.RelyingParty.Name = "The Example" })
	b := e.browser()
	g, u := b.signUp("ann@example.com")
	var o struct {
		RP                     struct{ ID, Name string }
		User                   struct{ ID, Name string }
		PubKeyCredParams       []struct{ Alg int }
		ExcludeCredentials     []struct{ ID string }
		AuthenticatorSelection struct{ ResidentKey, UserVerification string }
		Attestation            string
	}
	if err := json.Unmarshal(b.beginAdd(g), &o); err != nil {
		t.Fatal(err)
	}
	handle, _ := base64.RawURLEncoding.DecodeString(o.User.ID)
	if string(handle) != u.ID || o.User.Name != u.Email || o.RP.ID != "app.example" || o.RP.Name != "The Example" ||
		o.AuthenticatorSelection.ResidentKey != "required" || o.AuthenticatorSelection.UserVerification != "required" || o.Attestation != "none" ||
		len(o.ExcludeCredentials) != 1 || o.ExcludeCredentials[0].ID != u.Passkeys[0].ID || len(o.PubKeyCredParams) != 3 {
		t.Errorf("got options %+v", o)
	}
}

func TestDisabledUserHasNoPasskeyIn(t *testing.T) {
	e := setup(t, nil)
	b := e.browser()
	_, u := b.signUp("ann@example.com")
	yes := true
	if _, err := e.Update(t.Context(), u.ID, directory.Change{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	_, err := b.signIn(nil)
	wantIs(t, "disabled", err, counterfoil.ErrInvalidCredentials)
	if err := e.Delete(t.Context(), u.ID, "operator"); err != nil {
		t.Fatal(err)
	}
	_, err = b.signIn(nil)
	wantIs(t, "deleted", err, counterfoil.ErrInvalidCredentials)
}

// What ends the sessions of a user between the reading of the passkey and
// the start of the session ends this sign-in too.
func TestSEC28PasskeySignInDoesNotOutliveASignOut(t *testing.T) {
	for name, apart := range map[string]bool{"epoch with the user": false, "epoch apart": true} {
		t.Run(name, func(t *testing.T) {
			e := setup(t, nil)
			b := e.browser()
			_, u := b.signUp("ann@example.com")
			p := e.users.(*paused)
			p.apart = apart
			credential := b.get(b.beginSignIn(), nil)
			reads := 1
			if apart {
				reads = 2 // the one after the epoch
			}
			p.at = func(point string) {
				if point != "after User" {
					return
				}
				if reads--; reads == 0 {
					p.at = nil
					if err := e.auth.RevokeSubject(context.Background(), u.ID, counterfoil.SignedOutEverywhere); err != nil {
						t.Error(err)
					}
				}
			}
			_, err := b.finishSignIn(credential)
			wantIs(t, "sign-in", err, counterfoil.ErrInvalidCredentials)
		})
	}
}

func TestCeremoniesAreThrottledByNetwork(t *testing.T) {
	e := setup(t, func(c *directory.Config) { c.Throttle.Ceremony = directory.Limit{Free: 3, Slowest: 1e9} })
	b := e.browser()
	for range 3 {
		b.beginSignIn()
	}
	b.beginSignIn() // after the free ones the next has to wait
	_, err := b.BeginPasskeySignIn(t.Context(), b.request())
	var limited *counterfoil.RateLimitedError
	if !errors.As(err, &limited) {
		t.Fatalf("got %v, want it throttled", err)
	}
	other := e.browser()
	other.ip = "198.51.100.1"
	other.beginSignIn()
	e.clock.advance(2e9)
	b.beginSignIn()
}
