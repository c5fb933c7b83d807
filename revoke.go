package counterfoil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// RevokeOption refines a revocation.
type RevokeOption func(*revokeOptions)

type revokeOptions struct {
	except  string
	actor   string
	subject string
}

// Except keeps one session when all others of its subject are ended.
func Except(sid string) RevokeOption { return func(o *revokeOptions) { o.except = sid } }

// By records who ended the session: "user", an operator's name, an API key's id.
func By(actor string) RevokeOption { return func(o *revokeOptions) { o.actor = actor } }

// Of ends a session only if it is this subject's; otherwise [ErrNotFound].
func Of(subject string) RevokeOption { return func(o *revokeOptions) { o.subject = subject } }

// RevokeSession ends one session and those derived from it. When it returns,
// the session's tokens are refused in this process, no access token will be
// minted for it anywhere, and the feed log has the entry. Ending an ended
// session is no error. [ErrNotFound] when there is none.
func (a *Authority) RevokeSession(ctx context.Context, sid string, reason Reason, opts ...RevokeOption) error {
	revocations, err := a.revokeSession(ctx, a.sessions, sid, reason, opts)
	a.Apply(revocations...)
	return err
}

// RevokeSubject ends all sessions of a subject, or with [Except] all others.
// A sign-in that is under way with an older epoch ends with them.
func (a *Authority) RevokeSubject(ctx context.Context, subject string, reason Reason, opts ...RevokeOption) error {
	revocations, err := a.revokeSubject(ctx, a.sessions, subject, reason, opts)
	a.Apply(revocations...)
	return err
}

// RightsChanged makes every access token of the subject stale: the next call
// refreshes and carries what the Claims hook says then. Nobody signs in
// again. Call it after the new rights are committed.
func (a *Authority) RightsChanged(ctx context.Context, subject string) error {
	revocations, err := a.rightsChanged(ctx, a.sessions, subject)
	a.Apply(revocations...)
	return err
}

// NewAdvance is the template of an Advance that a directory's store carries
// out together with a change of the user.
func (a *Authority) NewAdvance(subject string) Advance {
	a.degraded.forgetSubject(subject)
	return Advance{Subject: subject, Retain: a.retain()}
}

func (a *Authority) revokeSession(ctx context.Context, sessions SessionStore, sid string, reason Reason, opts []RevokeOption) ([]Revocation, error) {
	o, err := collect(reason, opts)
	if err != nil {
		return nil, err
	}
	if !opaque.IsSelector(sid) {
		return nil, fmt.Errorf("revoke session: %w", ErrNotFound)
	}
	// Also where the store cannot be asked: then nobody mints for it here.
	a.degraded.forgetSession(sid)
	defer a.degraded.forgetSession(sid) // a refresh was under way
	ended, err := sessions.End(ctx, EndRequest{
		ID: sid, Subject: o.subject, End: End{Reason: reason, Actor: o.actor}, Retain: a.retain(),
	})
	if err != nil {
		return nil, a.storeError("revoke session", err)
	}
	if !ended.Changed {
		// Another node ended it before: this one's verifiers may not know yet.
		return []Revocation{{Kind: verify.RevokeSession, ID: sid, Until: a.now().Add(a.retain())}}, nil
	}
	return ended.Revocations, nil
}

func (a *Authority) revokeSubject(ctx context.Context, sessions SessionStore, subject string, reason Reason, opts []RevokeOption) ([]Revocation, error) {
	o, err := collect(reason, opts)
	if err != nil {
		return nil, err
	}
	if err := validSubject(subject); err != nil {
		return nil, err
	}
	advance := a.NewAdvance(subject)
	defer a.degraded.forgetSubject(subject)
	advance.SignOut, advance.End = true, End{Reason: reason, Actor: o.actor}
	if o.except != "" {
		advance.Keep = &Keep{ID: o.except}
	}
	done, err := sessions.Advance(ctx, advance)
	if err != nil {
		return nil, a.storeError("revoke subject", err)
	}
	return []Revocation{done.Revocation}, nil
}

func (a *Authority) rightsChanged(ctx context.Context, sessions SessionStore, subject string) ([]Revocation, error) {
	if err := validSubject(subject); err != nil {
		return nil, err
	}
	done, err := sessions.Advance(ctx, a.NewAdvance(subject))
	if err != nil {
		return nil, a.storeError("change rights", err)
	}
	return []Revocation{done.Revocation}, nil
}

func collect(reason Reason, opts []RevokeOption) (revokeOptions, error) {
	var o revokeOptions
	for _, opt := range opts {
		opt(&o)
	}
	if !reasonShape.MatchString(string(reason)) {
		return o, &FieldError{"reason", fmt.Sprintf("%.64q must be lower-case words joined by underscores", reason)}
	}
	o.actor = clean(o.actor, 128)
	return o, nil
}

// Tx does the revoking calls inside the application's own transaction. It is
// for one goroutine, like the transaction.
//
// End it with [Tx.Commit] instead of the transaction's own Commit: that
// tells this process's verifiers before it returns. After a Commit of the
// transaction itself they find it in the feed log, like those of other
// processes: within 10 ms. No access token is minted any more in either case.
type Tx struct {
	authority *Authority
	tx        *sql.Tx
	sessions  SessionStore
	pending   []Revocation
}

// RevokeSession is [Authority.RevokeSession] in the transaction.
func (t *Tx) RevokeSession(ctx context.Context, sid string, reason Reason, opts ...RevokeOption) error {
	revocations, err := t.authority.revokeSession(ctx, t.sessions, sid, reason, opts)
	t.pending = append(t.pending, revocations...)
	return err
}

// RevokeSubject is [Authority.RevokeSubject] in the transaction.
func (t *Tx) RevokeSubject(ctx context.Context, subject string, reason Reason, opts ...RevokeOption) error {
	revocations, err := t.authority.revokeSubject(ctx, t.sessions, subject, reason, opts)
	t.pending = append(t.pending, revocations...)
	return err
}

// RightsChanged is [Authority.RightsChanged] in the transaction.
func (t *Tx) RightsChanged(ctx context.Context, subject string) error {
	revocations, err := t.authority.rightsChanged(ctx, t.sessions, subject)
	t.pending = append(t.pending, revocations...)
	return err
}

// toldTimeout bounds how long Commit tries to reach the store of the sessions.
const toldTimeout = 10 * time.Second

// Commit commits the application's transaction and applies its revocations
// to this process's verifiers before it returns. [ErrNotTold] says that it is
// committed, but that sessions kept elsewhere could not be reached.
func (t *Tx) Commit() error {
	if err := t.tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	t.authority.Apply(t.pending...)
	ctx, cancel := context.WithTimeout(context.Background(), toldTimeout)
	defer cancel()
	err := t.authority.store.Committed(ctx, t.pending...)
	t.pending = nil
	return err
}

// Session reads one session from the primary, whatever its status; End is
// resolved. [ErrNotFound] when there is none.
func (a *Authority) Session(ctx context.Context, sid string) (Session, error) {
	if !opaque.IsSelector(sid) {
		return Session{}, fmt.Errorf("read session: %w", ErrNotFound)
	}
	snap, err := a.sessions.Snapshot(ctx, sid)
	if err != nil {
		return Session{}, a.storeError("read session", err)
	}
	return snap.Session, nil
}

// Sessions lists sessions, newest first. next is the After of the following
// page, empty at the end. Limit defaults to 100.
func (a *Authority) Sessions(ctx context.Context, q ListQuery) (sessions []Session, next string, err error) {
	if q.Limit == 0 {
		q.Limit = 100
	}
	if q.Limit < 1 || q.Limit > 1000 {
		return nil, "", &FieldError{"limit", "must be 1 to 1000"}
	}
	sessions, next, err = a.sessions.List(ctx, q)
	if errors.Is(err, ErrInvalidCursor) {
		return nil, "", &FieldError{"after", "is not the next of an earlier page"}
	}
	if err != nil {
		return nil, "", a.storeError("list sessions", err)
	}
	return sessions, next, nil
}

// SessionChange is what a backend may change of a running session. Nil leaves it.
type SessionChange struct {
	Roles *[]string
	Scope *[]string
	Extra *map[string]any
	// MaxAge moves the absolute expiry to this long after the session's start.
	MaxAge *time.Duration
}

// ChangeSession changes a running session. Access tokens minted before are
// answered with token_stale; the next refresh carries the change. A session
// that ended or expired stays as it is: [ErrConflict].
func (a *Authority) ChangeSession(ctx context.Context, sid string, change SessionChange) (Session, error) {
	if !opaque.IsSelector(sid) {
		return Session{}, fmt.Errorf("change session: %w", ErrNotFound)
	}
	s, revocations, err := a.sessions.Update(ctx, sid, a.retain(), func(s *Session) (bool, error) {
		if s.Status(a.now()) != StatusActive {
			return false, fmt.Errorf("%w: the session has ended", ErrConflict)
		}
		if change.Roles != nil {
			s.Roles = *change.Roles
		}
		if change.Scope != nil {
			s.Scope = *change.Scope
		}
		if change.Extra != nil {
			s.Extra = *change.Extra
		}
		if change.MaxAge != nil {
			limits := Lifetimes{Absolute: *change.MaxAge, Idle: min(s.IdleTimeout, *change.MaxAge)}
			if err := limits.validate("max_age"); err != nil {
				return false, err
			}
			s.ExpiresAt = s.CreatedAt.Add(limits.Absolute)
			s.IdleTimeout = limits.Idle
		}
		claims := Claims{Roles: s.Roles, Scope: s.Scope, Extra: s.Extra}
		if err := claims.validate(); err != nil {
			return false, err
		}
		_, err := appendExtra(nil, s.Extra)
		return true, err
	})
	a.Apply(revocations...)
	var field *FieldError
	if errors.As(err, &field) || errors.Is(err, ErrConflict) {
		return Session{}, err
	}
	if err != nil {
		return Session{}, a.storeError("change session", err)
	}
	return s, nil
}
