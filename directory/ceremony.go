package directory

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// Ceremony is one use or making of a passkey that was begun: what the server
// must remember until the browser answers (WebAuthn Level 3, section 13.4.3).
type Ceremony struct {
	// Challenge is 32 random bytes in base64url, 43 characters, and the key.
	Challenge string
	Kind      string // what it was begun for; at most 16 characters
	// Browser is the hash of the cookie that binds it to one browser.
	Browser   opaque.Hash
	UserID    string // whose, where that is known; of a sign-up: who it will be
	Email     string // sign-up: the address as given
	SessionID string // in whose session; empty for sign-in and sign-up
	ExpiresAt time.Time
}

// Kinds of ceremonies. An answer to one is no answer to another.
const (
	ceremonySignIn = "sign_in"
	ceremonySignUp = "sign_up"
	ceremonyAdd    = "add"
	ceremonyStepUp = "step_up"
)

// CeremonyCookie is the cookie that binds a ceremony to the browser that began it.
const CeremonyCookie = "__Host-counterfoil-ceremony"

// ceremonyLifetime is how long the user may take. WebAuthn proposes 5 minutes
// where the user is verified.
const ceremonyLifetime = 5 * time.Minute

// PasskeyCeremony is a ceremony that was begun, for the browser to go on with.
type PasskeyCeremony struct {
	// Options is JSON, the member publicKey of what is given to
	// navigator.credentials.create or get, in the form that
	// PublicKeyCredential.parseCreationOptionsFromJSON and
	// parseRequestOptionsFromJSON take.
	Options json.RawMessage
	// Cookie binds the ceremony to the browser: the answer is taken only with
	// it. The response that sets it must not be kept by any cache.
	Cookie *http.Cookie
}

var errNoCeremony = &counterfoil.FieldError{Field: "credential", Message: "answers nothing that was begun in this browser and is still open: it was used, has expired, or was begun elsewhere; begin again"}

// begin keeps a new ceremony and returns it with the cookie.
func (d *Directory) begin(ctx context.Context, r *http.Request, c Ceremony) (Ceremony, *http.Cookie, error) {
	if err := d.throttle.ceremony(ctx, d.network(r)); err != nil {
		return Ceremony{}, nil, err
	}
	var raw [32]byte
	rand.Read(raw[:])
	c.Challenge = base64.RawURLEncoding.EncodeToString(raw[:])
	c.ExpiresAt = d.auth.Now().Add(ceremonyLifetime)
	// A browser that has a secret keeps it, so that two tabs can each have a
	// ceremony open. It grants nothing by itself.
	secret := ceremonySecret(r)
	if secret == "" {
		made, _ := opaque.New(opaque.Ceremony, opaque.NewID())
		secret = made.Reveal()
	}
	c.Browser = sha256.Sum256([]byte(secret))
	if err := d.store.AddCeremony(ctx, c); err != nil {
		return Ceremony{}, nil, storeError("begin ceremony", err)
	}
	return c, &http.Cookie{
		Name: CeremonyCookie, Value: secret, Path: "/", MaxAge: int(ceremonyLifetime / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}, nil
}

// take ends the ceremony with this challenge, whatever becomes of it, and
// returns it if it is of the kind and was begun in the browser of r.
func (d *Directory) take(ctx context.Context, r *http.Request, challenge, kind string) (Ceremony, error) {
	c, err := d.store.TakeCeremony(ctx, challenge)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return Ceremony{}, errNoCeremony
	}
	if err != nil {
		return Ceremony{}, storeError("end ceremony", err)
	}
	secret := ceremonySecret(r)
	browser := sha256.Sum256([]byte(secret))
	if secret == "" || subtle.ConstantTimeCompare(browser[:], c.Browser[:]) != 1 ||
		c.Kind != kind || !d.auth.Now().Before(c.ExpiresAt) {
		return Ceremony{}, errNoCeremony
	}
	return c, nil
}

// ceremonySecret is the value of the one well-formed ceremony cookie, or empty.
func ceremonySecret(r *http.Request) string {
	if r == nil {
		return ""
	}
	cookies := r.CookiesNamed(CeremonyCookie)
	if len(cookies) != 1 {
		return ""
	}
	if _, err := opaque.Parse(opaque.Ceremony, cookies[0].Value); err != nil {
		return ""
	}
	return cookies[0].Value
}
