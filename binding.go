package counterfoil

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// DeviceBinding configures device-bound sessions (Device Bound Session
// Credentials, a W3C draft). A browser that knows them is offered, with the
// cookie of a sign-in, to make a key that cannot leave the device. Once it has
// registered one, the session cookie is good only together with a short-lived
// second cookie, which the browser renews by itself with a signature. A cookie
// that was copied to another machine is of no use once that cookie ends.
// Browsers that do not know it pass over the offer and lose nothing.
type DeviceBinding struct {
	// Off offers it to no browser, and asks no bound session for proof.
	Off bool
	// Window is the life of the second cookie, and so how long copied cookies
	// work: whole seconds up to 1 h; default 10 min. Browsers renew a cookie
	// that has less than about 2 min left, and have a quota of signatures (six
	// in nine minutes): below 4 min they may run into it.
	Window time.Duration
}

// Binding is the tie of a session to a key in the user's device.
type Binding struct {
	Key          DeviceKey
	RegisteredAt time.Time
	// Proofs is how often the device has proved itself. Each challenge is for
	// the next proof, and so good once.
	Proofs int64
}

// DeviceKey is a public key on P-256, as an uncompressed point (SEC 1 section 2.3.3).
type DeviceKey [65]byte

func deviceKey(k *jws.PublicKey) (d DeviceKey, err error) {
	pub, ok := k.Public().(*ecdsa.PublicKey)
	if !ok {
		return d, errors.New("not a key on P-256")
	}
	point, err := pub.Bytes()
	if err == nil && copy(d[:], point) != len(point) {
		err = errors.New("not a key on P-256")
	}
	return d, err
}

func (d *DeviceKey) public() (*jws.PublicKey, error) {
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), d[:])
	if err != nil {
		return nil, fmt.Errorf("stored device key: %w", err)
	}
	return jws.NewPublicKey("device", jws.ES256, pub)
}

const (
	boundCookie   = sessionCookie + "-bound"
	boundPrefix   = "cf_bd_"
	defaultWindow = 10 * time.Minute
	maxWindow     = time.Hour
	// bindingGrace is for requests that were on their way when the device
	// registered its key.
	bindingGrace = time.Minute
	// boundLeeway is for a request that left with the cookie's last second.
	boundLeeway = 5 * time.Second
	// joint is between a session token and the bound cookie that came with it.
	joint = "~"
)

func (d *DeviceBinding) validate() error {
	if d.Window < time.Second || d.Window > maxWindow || d.Window%time.Second != 0 {
		return &FieldError{"DeviceBinding.Window", fmt.Sprintf("%s must be whole seconds up to %s", d.Window, maxWindow)}
	}
	return nil
}

func (a *Authority) boundCookieName(clientID string) string {
	return boundCookie + strings.TrimPrefix(a.cookieName(clientID), sessionCookie)
}

// boundCookieOf is the Set-Cookie of the short-lived cookie that goes with the
// session token of a device-bound session.
func (a *Authority) boundCookieOf(s *Session, now time.Time) *http.Cookie {
	return &http.Cookie{
		Name: a.boundCookieName(s.ClientID), Value: boundPrefix + a.stamp(boundSubject(s), now.Add(a.cfg.DeviceBinding.Window)),
		Path: "/", MaxAge: int(a.cfg.DeviceBinding.Window / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// BoundCookieAttributes are those of the bound cookie as a browser is told
// them in advance; one that differs counts as missing there.
const BoundCookieAttributes = "Path=/; Secure; HttpOnly; SameSite=Lax"

// DropBoundCookie deletes the bound cookie that a request brought, if any: a
// new sign-in has no use for the one before.
func (a *Authority) DropBoundCookie(w http.ResponseWriter, r *http.Request, clientID string) {
	if name := a.boundCookieName(clientID); len(r.CookiesNamed(name)) > 0 {
		http.SetCookie(w, expired(name))
	}
}

// sessionCredential is the session token of an application's cookie, with the
// bound cookie that came beside it.
func (a *Authority) sessionCredential(r *http.Request, clientID string) (string, error) {
	token, err := oneCookie(r, a.cookieName(clientID))
	if err != nil {
		return "", err
	}
	bound, err := oneCookie(r, a.boundCookieName(clientID))
	if errors.Is(err, errAmbiguous) {
		return "", err
	}
	return JoinBound(token, bound), nil
}

// JoinBound is a session token together with the bound cookie that came with
// it, in the form in which [Authority.SessionTokenFrom] returns both and every
// method that takes a session token takes them. What has not the shape of a
// bound cookie is left out.
func JoinBound(sessionToken, bound string) string {
	if len(bound) != len(boundPrefix)+stampLen || !strings.HasPrefix(bound, boundPrefix) {
		return sessionToken
	}
	return sessionToken + joint + bound
}

// presented returns the live session of a session token, and the bound cookie
// that came with it, which nobody has looked at yet.
func (a *Authority) presented(ctx context.Context, credential, clientID string) (*Snapshot, string, error) {
	sessionToken, bound, _ := strings.Cut(credential, joint)
	token, err := opaque.Parse(opaque.SessionToken, sessionToken)
	if err != nil {
		return nil, "", &EndedError{Err: ErrSessionUnknown}
	}
	snap, err := a.snapshot(ctx, token.Selector)
	if errors.Is(err, ErrNotFound) {
		return nil, "", &EndedError{Err: ErrSessionUnknown}
	}
	if err != nil {
		return nil, "", a.storeError("read session", err)
	}
	// Reason and time are told to the right secret only.
	if !token.Matches(snap.Session.SecretHash) || clientID != "" && clientID != snap.Session.ClientID {
		return nil, "", &EndedError{Err: ErrSessionUnknown}
	}
	if err := snap.ended(); err != nil {
		return nil, "", err
	}
	return &snap, bound, nil
}

// proved refuses a device-bound session without a good bound cookie. It is the
// one place that does: whatever the session token came in, it leads here.
func (a *Authority) proved(snap *Snapshot, bound string) error {
	s := &snap.Session
	if s.Binding == nil || a.cfg.DeviceBinding.Off {
		return nil
	}
	if stamp, ok := strings.CutPrefix(bound, boundPrefix); ok && a.stamped(boundSubject(s), stamp, snap.Now.Add(-boundLeeway)) {
		return nil
	}
	if snap.Now.Before(s.Binding.RegisteredAt.Add(min(bindingGrace, a.cfg.DeviceBinding.Window))) {
		return nil
	}
	return verify.ErrProofRequired
}

// AuthenticateToEnd is [Authority.Authenticate] without proof of the device:
// for a sign-out, which nobody is kept from, and for nothing else.
func (a *Authority) AuthenticateToEnd(ctx context.Context, sessionToken string) (Session, error) {
	snap, _, err := a.presented(ctx, sessionToken, "")
	if err != nil {
		return Session{}, err
	}
	return snap.Session, nil
}

// skippedHeader is how a browser says that it would have proved the device if
// it could: the server was away, or its quota of signatures is used up.
const skippedHeader = "Secure-Session-Skipped"

// proofPending turns a missing proof into "try again" where the browser says
// that it has the key and will prove it later.
func proofPending(r *http.Request, err error) error {
	if errors.Is(err, verify.ErrProofRequired) && r.Header.Get(skippedHeader) != "" {
		return fmt.Errorf("%w: the browser put off the proof of the device", verify.ErrUnavailable)
	}
	return err
}
