package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// These names keep the verifier's sentinels short here.
var (
	errMissing   = verify.ErrCredentialMissing
	errAmbiguous = verify.ErrCredentialAmbiguous
)

// RefreshRequest asks for an access token.
type RefreshRequest struct {
	// Audience of the access token; default the first configured one.
	Audience string
	// Inactive says that the user did nothing since the last refresh: it
	// gives a token but does not slide the idle expiry.
	Inactive bool
	// ClientID, when set, must be the session's application.
	ClientID string
}

// Refresh trades a session token for a fresh access token. Any number of
// refreshes may run at once: nothing is used up. Errors: [*EndedError], the
// only ones that end the client's session; [*FieldError];
// [verify.ErrProofRequired] for a device-bound session whose bound cookie is
// missing or over; [verify.ErrUnavailable], to be tried again. With
// [Config.Degraded] a node that is cut off from its store mints from a copy.
func (a *Authority) Refresh(ctx context.Context, sessionToken string, r RefreshRequest) (_ *Grant, err error) {
	defer func() { a.counters.refreshes.count(err) }()
	audience, err := a.audience(r.Audience)
	if err != nil {
		return nil, err
	}
	iat := a.now()
	snap, err := a.authenticated(ctx, sessionToken, r.ClientID)
	if err != nil && a.degraded != nil && unanswered(err) && ctx.Err() == nil {
		return a.degraded.mint(sessionToken, audience, r, err)
	}
	if err != nil {
		return nil, err
	}
	return a.refreshed(ctx, snap, audience, iat, !r.Inactive)
}

// refreshed mints for a snapshot that was read after iat and is good.
func (a *Authority) refreshed(ctx context.Context, snap *Snapshot, audience string, iat time.Time, active bool) (*Grant, error) {
	if err := skew(iat, snap.Now, a.now()); err != nil {
		return nil, err
	}
	if active {
		a.touches.use(&snap.Session, snap.Now)
	}
	return a.mint(ctx, snap, audience, iat)
}

// Authenticate returns the live session of a session token, read from the
// primary now. Errors as of [Authority.Refresh].
func (a *Authority) Authenticate(ctx context.Context, sessionToken string) (Session, error) {
	snap, err := a.authenticated(ctx, sessionToken, "")
	if err != nil {
		return Session{}, err
	}
	return snap.Session, nil
}

func (a *Authority) authenticated(ctx context.Context, sessionToken, clientID string) (*Snapshot, error) {
	snap, bound, err := a.presented(ctx, sessionToken, clientID)
	if err == nil {
		err = a.proved(snap, bound)
	}
	if err != nil {
		return nil, err
	}
	return snap, nil
}

// ended is nil while the session is active.
func (snap *Snapshot) ended() error {
	s := &snap.Session
	switch s.Status(snap.Now) {
	case StatusRevoked:
		return &EndedError{Err: ErrSessionRevoked, SessionID: s.ID, Reason: s.End.Reason, EndedAt: s.End.At}
	case StatusExpired:
		return &EndedError{Err: ErrSessionExpired, SessionID: s.ID, EndedAt: s.IdleExpiresAt()}
	}
	return nil
}

// NewSessionSecret makes another secret for a session, to be recorded with
// [Keep] or [SessionStore.Update] and handed out by [Authority.Regrant].
func (a *Authority) NewSessionSecret(sid string) (Secret, opaque.Hash) {
	return opaque.New(opaque.SessionToken, sid)
}

// Regrant gives both credentials of a session whose secret was just replaced
// by the given one, as step-up and a password change do.
func (a *Authority) Regrant(ctx context.Context, _ *http.Request, s Session, secret Secret) (grant *Grant, err error) {
	defer func() { a.counters.refreshes.count(err) }()
	iat := a.now()
	// A bound device has proved itself with the secret before.
	snap, _, err := a.presented(ctx, secret.Reveal(), s.ClientID)
	if err != nil {
		return nil, err
	}
	if grant, err = a.refreshed(ctx, snap, a.cfg.Audiences[0], iat, true); err != nil {
		return nil, err
	}
	grant.SessionToken = secret
	return grant, nil
}

// storeError passes on what a store said, as "unavailable" unless it is an
// answer that callers act on.
func (a *Authority) storeError(doing string, err error) error {
	for _, answer := range []error{ErrNotFound, ErrSignedOutMeanwhile, ErrSubjectDisabled, ErrInvalidCursor, context.Canceled} {
		if errors.Is(err, answer) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	a.counters.storeErrors.Add(1)
	return fmt.Errorf("%w: %s: %w", verify.ErrUnavailable, doing, err)
}
