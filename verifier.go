package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// exchangeFor is how long after its expiry an access token can still be
// traded for a fresh one (protocol section 3).
const exchangeFor = 10 * time.Minute

func (a *Authority) newVerifier(audience string, exchange time.Duration) (*verify.Verifier, error) {
	return verify.NewLocal(verify.Config{
		Issuer: a.cfg.Issuer, Audience: audience, AcceptAnyAudience: audience == "",
		Clock: a.clock, Logger: a.log,
	}, verify.Local{
		Key: a.publicKey, Revocations: a.revocations, Live: a.live,
		FeedAge: func() (time.Duration, bool) { return a.follower.age() }, MaxTokenLifetime: a.maxTokenLifetime, ExchangeFor: exchange,
	})
}

// live is the live check of this process: the store is asked now.
func (a *Authority) live(ctx context.Context, c *verify.Claims) (err error) {
	defer func() { a.counters.liveChecks.count(err) }()
	snap, err := a.snapshot(ctx, c.SessionID)
	switch {
	case errors.Is(err, ErrNotFound):
		return verify.ErrTokenRevoked
	case err != nil:
		return a.storeError("live check", err)
	case snap.Session.Subject != c.Subject || snap.Session.ClientID != c.ClientID:
		return verify.ErrTokenRevoked
	case snap.ended() != nil:
		return verify.ErrTokenRevoked
	case c.Epoch < snap.Subject.Epoch:
		return verify.ErrTokenStale
	}
	return nil
}

// Introspect is the live check of an access token of any audience: its claims
// when it serves now, otherwise the verifier's error (RFC 7662 on the wire).
func (a *Authority) Introspect(ctx context.Context, accessToken string) (*verify.Claims, error) {
	c, err := a.anyAudience.Check(ctx, accessToken, verify.Live())
	if errors.Is(err, verify.ErrTokenInvalid) {
		found, missing := a.missingKey(ctx, accessToken)
		switch {
		case missing != nil:
			return nil, missing
		case found:
			c, err = a.anyAudience.Check(ctx, accessToken, verify.Live())
		}
	}
	if errors.Is(err, verify.ErrTokenExpired) || errors.Is(err, verify.ErrTokenInvalid) {
		// It may be over, or from a time to come, by this node's clock alone.
		if off := a.Ready(ctx); errors.Is(off, ErrClockSkew) {
			return nil, off
		}
	}
	return c, err
}

// AnyAudience verifies access tokens of any audience of this issuer, for the
// authority's own routes such as userinfo.
func (a *Authority) AnyAudience() *verify.Verifier { return a.anyAudience }

// ExchangeRequest asks what became of an access token.
type ExchangeRequest struct {
	// ClientID is the caller's application; tokens of another are refused.
	ClientID string
	// MaxTokenAge, when not zero, asks for a fresh token when the given one is older.
	MaxTokenAge time.Duration
	// BoundCookie is the bound cookie that the browser sent beside the token:
	// a device-bound session gets no fresh token without it.
	BoundCookie string
}

// Exchange checks an access token against its session now. When the token is
// expired (by at most ten minutes), stale or older than asked, the grant
// carries a fresh one for the same audience; otherwise its AccessToken is
// empty. Errors: [*EndedError] when the session has ended, the verifier's
// when the token is not good for it, [verify.ErrProofRequired].
func (a *Authority) Exchange(ctx context.Context, accessToken string, r ExchangeRequest) (*Grant, error) {
	iat := a.now()
	c, err := a.exchanger.Check(ctx, accessToken)
	if errors.Is(err, verify.ErrTokenInvalid) {
		found, missing := a.missingKey(ctx, accessToken)
		switch {
		case missing != nil:
			return nil, missing
		case found:
			c, err = a.exchanger.Check(ctx, accessToken)
		}
	}
	if err != nil {
		return nil, err
	}
	if r.ClientID != "" && c.ClientID != r.ClientID {
		return nil, fmt.Errorf("token of another application: %w", verify.ErrTokenInvalid)
	}
	snap, err := a.snapshot(ctx, c.SessionID)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, &EndedError{Err: ErrSessionUnknown}
	case err != nil:
		return nil, a.storeError("read session", err)
	case snap.Session.Subject != c.Subject || snap.Session.ClientID != c.ClientID:
		return nil, &EndedError{Err: ErrSessionUnknown}
	}
	if err := snap.ended(); err != nil {
		return nil, err
	}
	fresh := iat.Before(c.ExpiresAt) && c.Epoch >= snap.Subject.Epoch &&
		(r.MaxTokenAge == 0 || iat.Sub(c.IssuedAt) <= r.MaxTokenAge)
	if fresh {
		return &Grant{Session: snap.Session, ServerTime: snap.Now}, nil
	}
	// A backend asks on behalf of a request that the user made: that is use.
	if err := a.proved(&snap, r.BoundCookie); err != nil {
		return nil, err
	}
	return a.refreshed(ctx, &snap, c.Audience, iat, true)
}
