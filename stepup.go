package counterfoil

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// Reauthenticated records that the user of a live session, as
// [Authority.Authenticate] returned it, has just proved again who they are
// (step-up): its AuthTime becomes now, its Methods the given ones (amr,
// RFC 8176), and its session token is replaced. The old one is dead when this
// returns. An [*EndedError] when the session ended meanwhile, or when its
// secret was replaced since s was read: then another credential than the one
// that was checked may be in force.
func (a *Authority) Reauthenticated(ctx context.Context, r *http.Request, s Session, methods []string) (*Grant, error) {
	secret, hash := a.NewSessionSecret(s.ID)
	now, checked := a.now(), s.SecretHash
	s, revocations, err := a.sessions.Update(ctx, s.ID, a.retain(), func(stored *Session) (bool, error) {
		if stored.SecretHash != checked {
			return false, &EndedError{Err: ErrSessionUnknown}
		}
		if end := stored.End; end != nil {
			return false, &EndedError{Err: ErrSessionRevoked, SessionID: stored.ID, Reason: end.Reason, EndedAt: end.At}
		}
		stored.SecretHash, stored.AuthTime, stored.Methods = hash, now, slices.Clone(methods)
		return false, nil
	})
	a.Apply(revocations...)
	if ended := (*EndedError)(nil); errors.As(err, &ended) {
		return nil, err
	}
	if err != nil {
		return nil, a.storeError("step up", err)
	}
	a.watches.replaced(s.ID)
	return a.Regrant(ctx, r, s, secret)
}
