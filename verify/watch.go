package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/revoked"
)

// Watch returns a context that ends with the access token that the claims in
// ctx are of, so that a WebSocket, a stream of server-sent events or a long
// download does not outlive the session that opened it. It ends, by itself and
// without a goroutine of its own, when
//
//   - the session, the user, the token or the key is revoked, within the lag of
//     the feed: [context.Cause] is [ErrTokenRevoked];
//   - the user's rights have changed since the token was issued:
//     [ErrTokenStale]. The client connects again with a fresh token;
//   - the token has expired and was not renewed by [Renew]: [ErrTokenExpired];
//   - ctx ends, or stop is called, which frees what the watch holds.
//
// The context of [Verifier.Require] carries the claims. Where there are none,
// the returned context has ended already, with [ErrCredentialMissing].
// Claims that a test has put there with [NewContext] are watched for expiry only.
//
//	ctx, stop := verify.Watch(r.Context())
//	defer stop()
//	for {
//		select {
//		case <-ctx.Done():
//			return // context.Cause(ctx) says why
//		case m := <-messages:
//			…
//		}
//	}
func Watch(ctx context.Context) (watched context.Context, stop context.CancelFunc) {
	inner, cancel := context.WithCancelCause(ctx)
	c, ok := FromContext(ctx)
	if !ok {
		cancel(ErrCredentialMissing)
		return inner, func() {}
	}
	w := &watch{cancel: cancel, verifier: c.verifier, kid: c.kid()}
	w.claims.Store(c)
	if w.verifier == nil {
		w.verifier = unverified
	}
	w.verifier.watches.add(w)
	// Registered first: what is revoked from now on wakes the watch, and what
	// was before is seen here.
	w.look()
	forget := context.AfterFunc(inner, w.forget)
	return &watchContext{inner, w}, func() {
		if forget() {
			w.forget()
		}
		cancel(context.Canceled)
	}
}

// Renew gives the watch in ctx a fresh access token, which the client has sent
// over the connection, before the present one expires: the connection goes on
// for as long as the new token lives, and [FromContext] tells its claims. The
// token is verified as [Verifier.Check] does, with the rules of the route if
// they are given again, and has to be of the same session. When it is refused
// the watch stays as it was.
//
// The error is an *[Error], or says that ctx has no watch.
func Renew(ctx context.Context, token string, rules ...Rule) error {
	w, ok := ctx.Value(watchKey{}).(*watch)
	if !ok {
		return errors.New("verify: Renew: the context comes from no Watch")
	}
	if w.verifier == unverified {
		return because(ErrUnavailable, errors.New("these claims come from no token"))
	}
	c, err := w.verifier.Check(ctx, token, rules...)
	if err != nil {
		return err
	}
	return w.renew(c)
}

type watchKey struct{}

// watchContext tells the claims of the latest token.
type watchContext struct {
	context.Context
	watch *watch
}

func (c *watchContext) Value(key any) any {
	switch key.(type) {
	case contextKey:
		return c.watch.claims.Load()
	case watchKey:
		return c.watch
	}
	return c.Context.Value(key)
}

func (c *watchContext) String() string { return fmt.Sprintf("%v.Watch", c.Context) }

// watch is one context of Watch.
type watch struct {
	verifier *Verifier
	cancel   context.CancelCauseFunc
	claims   atomic.Pointer[Claims]

	mu    sync.Mutex // guards all that follows, and changes of claims
	kid   string
	over  bool
	timer *time.Timer
}

// unverified watches claims that come from no verifier.
var unverified = &Verifier{clock: time.Now, revocations: revoked.NewTable(nil)}

// look ends the watch if its token does not hold now, and otherwise comes back
// when it has expired.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	v, c := w.verifier, w.claims.Load()
	if err := v.ended(c, w.kid); err != nil {
		w.over = true
		w.cancel(err)
		return
	}
	if c.ExpiresAt.IsZero() {
		return
	}
	// A clock that is not the system's may not run as timers do.
	left := max(c.ExpiresAt.Add(leeway).Sub(v.clock()), time.Millisecond)
	if w.timer == nil {
		w.timer = time.AfterFunc(left, w.look)
	} else {
		w.timer.Reset(left)
	}
}

// ended tells why a token that was good does not hold any longer, or nil.
func (v *Verifier) ended(c *Claims, kid string) error {
	if v.revocations.KeyRevoked(kid) {
		return because(ErrTokenRevoked, errRevokedKey)
	}
	switch v.revocations.Check(c.query()) {
	case revoked.Revoked:
		return ErrTokenRevoked
	case revoked.Stale:
		return ErrTokenStale
	}
	if !c.ExpiresAt.IsZero() && !v.clock().Before(c.ExpiresAt.Add(leeway)) {
		return ErrTokenExpired
	}
	return nil
}

func (w *watch) renew(c *Claims) error {
	now := w.claims.Load()
	if c.SessionID != now.SessionID || c.Subject != now.Subject || c.ClientID != now.ClientID {
		return because(ErrTokenInvalid, errors.New("the token is of another session"))
	}
	w.mu.Lock()
	now = w.claims.Load()
	if !w.over && (c.Epoch > now.Epoch || c.Epoch == now.Epoch && c.ExpiresAt.After(now.ExpiresAt)) {
		// Found by its new name first, and looked at then.
		w.verifier.watches.move(w, now, c)
		w.claims.Store(c)
		w.kid = c.kid()
	}
	w.mu.Unlock()
	w.look()
	return nil
}

// forget lets go of a watch whose context has ended.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.verifier.watches.remove(w)
}
