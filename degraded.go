package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	minDegraded = 30 * time.Second
	maxDegraded = time.Hour
	// defaultDegradedSessions is about 30 MB where each session was used.
	defaultDegradedSessions = 20_000
	// leastDegraded is the shortest life of a token that is worth minting.
	leastDegraded = 5 * time.Second
)

func (c *Config) validateDegraded() error {
	if d := c.Degraded; d != 0 && (d < minDegraded || d > maxDegraded || d%time.Second != 0) {
		return &FieldError{"Degraded", fmt.Sprintf("%s must be 0 (off), or whole seconds from %s to %s", d, minDegraded, maxDegraded)}
	}
	if c.DegradedSessions < 0 {
		return &FieldError{"DegradedSessions", "must not be negative"}
	}
	return nil
}

// degradedMinting is what [Config.Degraded] brings; nil where it is off.
type degradedMinting struct {
	a      *Authority
	copies *copies
	outage *outage
	// from is when the store has made sure that every entry of the feed is kept
	// for long enough, by this node's clock. What was read before makes no copy.
	from  time.Time
	mints atomic.Uint64
}

func newDegradedMinting(a *Authority, unsettled time.Duration) *degradedMinting {
	if a.cfg.Degraded == 0 {
		return nil
	}
	d := &degradedMinting{a: a, copies: newCopies(a.cfg.DegradedSessions, a.cfg.Degraded), from: a.now().Add(unsettled)}
	d.outage = newOutage(d)
	return d
}

// snapshot reads a session. Where degraded minting is on it waits for so long
// only, and takes note of what the answer says of the copies.
func (a *Authority) snapshot(ctx context.Context, sid string) (Snapshot, error) {
	d := a.degraded
	if d == nil {
		return a.sessions.Snapshot(ctx, sid)
	}
	snap, err := d.outage.read(ctx, sid)
	switch {
	case err == nil:
		d.copies.compare(&snap)
	case errors.Is(err, ErrNotFound):
		d.copies.remove(sid)
	default:
		d.heard(err)
	}
	return snap, err
}

// heard takes note of an error of the store. One that is an answer, and not
// about one session, says that this store is not what it was, for instance that
// everything was moved to another: then nothing that was read from it holds.
func (d *degradedMinting) heard(err error) {
	if d != nil && err != nil && !unanswered(err) && !errors.Is(err, context.Canceled) {
		d.copies.clear()
	}
}

// forget is for a store that went over to another history.
func (d *degradedMinting) forget() {
	if d != nil {
		d.copies.clear()
	}
}

// forgetSession and forgetSubject are for whatever this node is about to end,
// also where the store then fails to.
func (d *degradedMinting) forgetSession(sid string) {
	if d != nil {
		d.copies.remove(sid)
	}
}

func (d *degradedMinting) forgetSubject(subject string) {
	if d != nil {
		d.copies.removeSubject(subject)
	}
}

// unanswered tells a store that could not be asked from one that refuses. One
// that was moved is no store any more.
func unanswered(err error) bool {
	return (errors.Is(err, ErrStoreUnavailable) || errors.Is(err, context.DeadlineExceeded)) &&
		!errors.Is(err, ErrStoreMoved) && !errors.Is(err, ErrStoreWentBack)
}

// keep makes a copy of a session for which an access token was minted. rest is
// what the token says beyond its times; it is copied.
func (d *degradedMinting) keep(snap *Snapshot, readAt time.Time, rest []byte) {
	if d != nil && !readAt.Before(d.from) {
		d.copies.keep(snap, readAt, rest)
	}
}

// errNoCopy adds to the cause why nothing could be minted without the store.
func errNoCopy(cause error, why string) error {
	return fmt.Errorf("%w; not minted from a copy: %s", cause, why)
}

// mint mints from the copy of a session whose read has failed for the given
// cause. It answers with a grant or with the cause: what only the store can
// tell, such as that a session has ended, is never told from a copy.
func (d *degradedMinting) mint(credential, audience string, r RefreshRequest, cause error) (*Grant, error) {
	a := d.a
	sessionToken, bound, _ := strings.Cut(credential, joint)
	token, err := opaque.Parse(opaque.SessionToken, sessionToken)
	if err != nil {
		return nil, cause
	}
	c, ok := d.copies.get(token.Selector)
	if !ok {
		return nil, errNoCopy(cause, "this node has none")
	}
	now := a.now()
	exp, ok := c.exp(now, a.cfg.Degraded, a.lifetime())
	switch {
	case !token.Matches(c.session.SecretHash), r.ClientID != "" && r.ClientID != c.session.ClientID:
		return nil, errNoCopy(cause, "it is of another session token")
	case !ok || exp.Sub(now) < leastDegraded || c.session.Status(now) != StatusActive:
		return nil, errNoCopy(cause, "it is too old, or the session is at its end")
	}
	set := a.keys.Load()
	verdict := a.revocations.Check(revoked.Query{
		SessionID: c.session.ID, Subject: c.session.Subject, ClientID: c.session.ClientID, Epoch: c.epoch,
	})
	switch {
	case verdict != revoked.None:
		d.copies.remove(c.session.ID)
		return nil, errNoCopy(cause, "it was revoked, or its rights changed")
	case c.keyVersion > set.version || a.revocations.KeyRevoked(set.kid):
		return nil, errNoCopy(cause, "the signing key was replaced")
	}
	snap := &Snapshot{Session: cloneSession(&c.session), Now: now}
	if err := a.proved(snap, bound); err != nil {
		return nil, errNoCopy(cause, "the device has to prove itself, which takes the store")
	}
	if !r.Inactive {
		a.touches.use(&snap.Session, now)
	}
	grant, err := a.sign(set, snap, payloadTimes{audience, c.readAt, exp}, now, append(c.rest[:len(c.rest):len(c.rest)], `,"degraded":true`...))
	if err != nil {
		return nil, err
	}
	grant.Degraded = true
	d.mints.Add(1)
	return grant, nil
}

// Degraded reports since when this node has been cut off from its store and
// mints from copies ([Config.Degraded]); false while the store answers.
func (a *Authority) Degraded() (since time.Time, degraded bool) {
	if a.degraded == nil {
		return time.Time{}, false
	}
	return a.degraded.outage.since()
}

// ReadyDegraded says whether this node can still mint for some users though
// [Authority.Ready] failed with the given error: it is cut off from its store,
// and has copies that are not too old ([Config.Degraded]).
func (a *Authority) ReadyDegraded(notReady error) bool {
	return a.degraded != nil && unanswered(notReady) && !errors.Is(notReady, ErrClockSkew) && a.degraded.copies.usable(a.now())
}
