package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/clientip"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/strictjson"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	// offerFor is how long after a sign-in a key may be registered.
	offerFor = 5 * time.Minute
	// challengeSpare is how long a challenge outlives the window: the browser
	// signs the one it was given with the cookie when the cookie ends.
	challengeSpare = time.Minute
	proofType      = "dbsc+jwt"
	actorDevice    = "device"
)

// Header fields of Device Bound Session Credentials.
const registrationHeader = "Secure-Session-Registration"

// OfferBinding offers the browser, with the answer that sets the session
// cookie of a grant, to bind the session to a key of the device. path is where
// POST /dbsc/register of the device API is, seen from the address of that
// answer. Nothing is offered with a grant that carries no new session token,
// or whose session is bound already.
func (a *Authority) OfferBinding(w http.ResponseWriter, g *Grant, path string) {
	s := &g.Session
	if a.cfg.DeviceBinding.Off || g.SessionToken.IsZero() || s.Binding != nil {
		return
	}
	until := g.ServerTime.Add(offerFor)
	w.Header().Set(registrationHeader, fmt.Sprintf(`(ES256);path="%s";challenge="%s";authorization="%s"`,
		path, a.stamp(offerSubject("register", s), until), s.ID+a.stamp(offerSubject("authorization", s), until)))
}

// BoundGrant is what a device gets that has proved itself.
type BoundGrant struct {
	Session   Session
	Cookie    *http.Cookie // the bound cookie
	Challenge string       // for the next proof
}

func (a *Authority) boundGrant(s *Session, now time.Time) *BoundGrant {
	return &BoundGrant{Session: *s, Cookie: a.boundCookieOf(s, now), Challenge: a.challenge(s, now)}
}

func (a *Authority) challenge(s *Session, now time.Time) string {
	return a.stamp(challengeSubject(s), now.Add(a.cfg.DeviceBinding.Window+challengeSpare))
}

// ProofError refuses a proof that a device gave of itself: it is missing, out
// of date or not understood. It ends nothing.
type ProofError struct {
	// Challenge is to be signed instead; empty when registering a key.
	Challenge string
	// Cause is for logs.
	Cause error
}

func (e *ProofError) Error() string { return "device proof: " + e.Cause.Error() }

// Unwrap returns what is told to the client, and the cause.
func (e *ProofError) Unwrap() []error { return []error{verify.ErrProofRefused, e.Cause} }

// deviceProof is the JWT by which a device proves that it has a key. Only its
// form has been checked.
type deviceProof struct {
	jws.Proof
	jti, authorization, aud string
	hasAud                  bool
}

func readDeviceProof(text string) (p deviceProof, err error) {
	if text == "" {
		return p, errors.New("there is none")
	}
	if p.Proof, err = jws.ParseProof(text); err != nil {
		return p, err
	}
	if p.Typ != proofType || p.Alg != jws.ES256 {
		return p, fmt.Errorf("want typ %s and alg ES256", proofType)
	}
	err = strictjson.Object(p.Payload, func(name string, value []byte) (err error) {
		switch name {
		case "jti":
			p.jti, err = strictjson.String(value)
		case "authorization":
			p.authorization, err = strictjson.String(value)
		case "aud":
			p.aud, err = strictjson.String(value)
			p.hasAud = true
		}
		return err
	})
	if err == nil && p.jti == "" {
		err = errors.New("no jti")
	}
	return p, err
}

// isFor reports whether aud, where the browser says it, is the address that
// the proof came to. A proxy may have changed the path before it.
func (p *deviceProof) isFor(a *Authority, r *http.Request) bool {
	if !p.hasAud {
		return true
	}
	aud, err := url.Parse(p.aud)
	if err != nil || aud.Host == "" {
		return false
	}
	hosts := []string{r.Host}
	if issuer, err := url.Parse(a.cfg.Issuer); err == nil {
		hosts = append(hosts, issuer.Host)
	}
	if clientip.Trusts(r, a.cfg.TrustedProxies) {
		hosts = append(hosts, r.Header.Get("X-Forwarded-Host"))
	}
	const twoSegments = 2
	path := strings.Split(r.URL.Path, "/")
	path = path[max(0, len(path)-twoSegments):]
	for _, host := range hosts {
		if strings.EqualFold(aud.Host, host) && strings.HasSuffix(aud.Path, "/"+strings.Join(path, "/")) {
			return true
		}
	}
	return false
}

// RegisterDevice binds a session to the key that a browser made after
// [Authority.OfferBinding]. sessionTokens are those of the request's session
// cookies; the proof says which of them it is about. Errors: [*ProofError],
// after which the session goes on unbound; [*EndedError];
// [verify.ErrUnavailable].
func (a *Authority) RegisterDevice(ctx context.Context, r *http.Request, proof string, sessionTokens ...string) (*BoundGrant, error) {
	p, err := readDeviceProof(proof)
	if err != nil {
		return nil, &ProofError{Cause: err}
	}
	key, err := jwk.ParseProofKey(p.JWK)
	if err != nil {
		return nil, &ProofError{Cause: err}
	}
	sessionToken := tokenOf(sessionTokens, p.authorization[:min(len(p.authorization), opaque.SelectorLen)])
	if sessionToken == "" {
		return nil, &ProofError{Cause: errors.New("the session cookie is not the one that the authorization is about")}
	}
	snap, _, err := a.presented(ctx, sessionToken, "")
	if err != nil {
		return nil, err
	}
	if err := a.acceptOffer(r, &snap.Session, &p, key, snap.Now); err != nil {
		return nil, &ProofError{Cause: err}
	}
	binding := Binding{RegisteredAt: snap.Now}
	if binding.Key, err = deviceKey(key); err != nil {
		return nil, &ProofError{Cause: err}
	}
	checked := snap.Session.SecretHash
	return a.change(ctx, snap, func(stored *Session) error {
		if stored.Binding != nil || stored.SecretHash != checked {
			return &ProofError{Cause: errors.New("the offer was taken up before")}
		}
		fresh := binding
		stored.Binding = &fresh
		return nil
	})
}

// tokenOf is the session token of one session, or empty.
func tokenOf(sessionTokens []string, sid string) string {
	for _, token := range sessionTokens {
		text, _, _ := strings.Cut(token, joint)
		if parsed, err := opaque.Parse(opaque.SessionToken, text); err == nil && parsed.Selector == sid {
			return token
		}
	}
	return ""
}

// acceptOffer checks that a proof answers the offer that went out with the
// session's present secret, and that its key signed it.
func (a *Authority) acceptOffer(r *http.Request, s *Session, p *deviceProof, key *jws.PublicKey, now time.Time) error {
	authorization, mine := strings.CutPrefix(p.authorization, s.ID)
	switch {
	case a.cfg.DeviceBinding.Off:
		return errors.New("device binding is off")
	case s.Binding != nil:
		return errors.New("the session is bound already")
	case !a.stamped(offerSubject("register", s), p.jti, now):
		return errors.New("the challenge is not of this sign-in, or too old")
	case !mine || !a.stamped(offerSubject("authorization", s), authorization, now):
		return errors.New("the authorization is not of this sign-in, or too old")
	case !p.isFor(a, r):
		return errors.New("aud is another address")
	}
	return p.Verify(key)
}

// ProveDevice renews the bound cookie of a session for the device that signed
// its challenge. sid is what the browser names the session by; sessionTokens
// are those of the request's session cookies, if there are any. Errors:
// [*ProofError] with a challenge to sign; [*EndedError]; [verify.ErrUnavailable].
//
// A good challenge that another key signed ends the session, if the session
// token came with it: then somebody has a copy. Without the token anybody could
// have sent it.
func (a *Authority) ProveDevice(ctx context.Context, r *http.Request, sid, proof string, sessionTokens ...string) (*BoundGrant, error) {
	if !opaque.IsSelector(sid) {
		return nil, &EndedError{Err: ErrSessionUnknown}
	}
	snap, err := a.snapshot(ctx, sid)
	if errors.Is(err, ErrNotFound) {
		return nil, &EndedError{Err: ErrSessionUnknown}
	}
	if err != nil {
		return nil, a.storeError("read session", err)
	}
	s := &snap.Session
	holder := holds(tokenOf(sessionTokens, sid), s)
	if err := snap.ended(); err != nil && holder {
		return nil, err
	} else if err != nil || s.Binding == nil {
		return nil, &EndedError{Err: ErrSessionUnknown}
	}
	again := func(cause error) error {
		return &ProofError{Challenge: a.challenge(s, snap.Now), Cause: cause}
	}
	p, err := readDeviceProof(proof)
	switch {
	case err != nil:
		return nil, again(err)
	case !a.stamped(challengeSubject(s), p.jti, snap.Now):
		return nil, again(errors.New("the challenge is used, too old or another session's"))
	case !p.isFor(a, r):
		return nil, again(errors.New("aud is another address"))
	}
	key, err := s.Binding.Key.public()
	if err != nil {
		return nil, err
	}
	if err := p.Verify(key); err != nil {
		if !holder {
			return nil, again(err)
		}
		return nil, a.endMismatched(ctx, s)
	}
	was := *s.Binding
	return a.change(ctx, &snap, func(stored *Session) error {
		if stored.Binding == nil {
			return &EndedError{Err: ErrSessionUnknown}
		}
		if *stored.Binding != was {
			return &ProofError{Challenge: a.challenge(stored, snap.Now), Cause: errors.New("another proof was faster")}
		}
		stored.Binding.Proofs++
		return nil
	})
}

func holds(sessionToken string, s *Session) bool {
	text, _, _ := strings.Cut(sessionToken, joint)
	token, err := opaque.Parse(opaque.SessionToken, text)
	return err == nil && token.Matches(s.SecretHash)
}

// endMismatched ends a session whose token somebody has who has not its key.
func (a *Authority) endMismatched(ctx context.Context, s *Session) error {
	a.log.Warn("a device-bound session is ended: its token came with a proof by another key", "sid", s.ID, "subject", s.Subject)
	if err := a.RevokeSession(ctx, s.ID, DeviceKeyMismatch, By(actorDevice)); err != nil {
		return err
	}
	return &EndedError{Err: ErrSessionRevoked, SessionID: s.ID, Reason: DeviceKeyMismatch, EndedAt: a.now()}
}

// change records what a good proof changes, once.
func (a *Authority) change(ctx context.Context, snap *Snapshot, fn func(*Session) error) (*BoundGrant, error) {
	s, revocations, err := a.sessions.Update(ctx, snap.Session.ID, a.retain(), func(stored *Session) (bool, error) {
		if end := stored.End; end != nil {
			return false, &EndedError{Err: ErrSessionRevoked, SessionID: stored.ID, Reason: end.Reason, EndedAt: end.At}
		}
		return false, fn(stored)
	})
	a.degraded.forgetSession(snap.Session.ID)
	a.Apply(revocations...)
	var ended *EndedError
	var proof *ProofError
	switch {
	case errors.As(err, &ended), errors.As(err, &proof):
		return nil, err
	case errors.Is(err, ErrNotFound):
		return nil, &EndedError{Err: ErrSessionUnknown}
	case err != nil:
		return nil, a.storeError("bind session", err)
	}
	return a.boundGrant(&s, snap.Now), nil
}
