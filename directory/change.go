package directory

import (
	"context"
	"fmt"
	"net/http"

	"github.com/counterfoil/counterfoil"
)

// StepUp has the user of a live session prove again who they are: its
// auth_time becomes now and its session token is replaced; the old one is
// dead when this returns. Errors: [*counterfoil.EndedError],
// [counterfoil.ErrInvalidCredentials], [*counterfoil.FieldError],
// [*counterfoil.RateLimitedError], [verify.ErrUnavailable].
func (d *Directory) StepUp(ctx context.Context, sessionToken, password string, r *http.Request) (*counterfoil.Grant, error) {
	s, _, err := d.reauthenticated(ctx, sessionToken, "password", password)
	if err != nil {
		return nil, err
	}
	return d.auth.Reauthenticated(ctx, r, s, []string{methodPwd})
}

// ChangePassword replaces the user's password, ends all other sessions and
// replaces the session token of this one, in one transaction. A reset token
// that was not used yet is void. Errors as of [Directory.StepUp].
//
// When this session ended at the same moment, the password is changed and
// the error is a [*counterfoil.EndedError].
func (d *Directory) ChangePassword(ctx context.Context, sessionToken, current, next string, r *http.Request) (*counterfoil.Grant, error) {
	s, u, err := d.reauthenticated(ctx, sessionToken, "current", current)
	if err != nil {
		return nil, err
	}
	hash, err := d.newHash(ctx, next, u.EmailKey)
	if err != nil {
		return nil, err
	}
	secret, secretHash := d.auth.NewSessionSecret(s.ID)
	now := d.auth.Now()
	advance := d.auth.NewAdvance(u.ID)
	advance.SignOut = true
	advance.End = counterfoil.End{Reason: counterfoil.PasswordChanged, Actor: actorUser}
	advance.Keep = &counterfoil.Keep{ID: s.ID, SecretHash: secretHash, AuthTime: now, Methods: []string{methodPwd}}
	_, advanced, err := d.update(ctx, u.ID, func(stored *User) (*counterfoil.Advance, error) {
		if stored.Password != u.Password || stored.Rights.Disabled {
			return nil, errSuperseded
		}
		setPassword(stored, hash)
		return &advance, nil
	})
	if err != nil {
		return nil, err
	}
	if advanced == nil || advanced.Kept == nil {
		if _, err := d.auth.Authenticate(ctx, sessionToken); err != nil {
			return nil, err
		}
		return nil, &counterfoil.EndedError{Err: counterfoil.ErrSessionUnknown, SessionID: s.ID}
	}
	return d.auth.Regrant(ctx, r, *advanced.Kept, secret)
}

// newHash checks a new password by the rules and hashes it.
func (d *Directory) newHash(ctx context.Context, password, emailKey string) (string, error) {
	normal, err := d.rules.accept(ctx, "new", password, emailKey)
	if err != nil {
		return "", err
	}
	return d.hashNew(ctx, normal)
}

// reauthenticated is the live session of the token, and its user whose
// password is the given one.
func (d *Directory) reauthenticated(ctx context.Context, sessionToken, field, password string) (counterfoil.Session, User, error) {
	fail := func(err error) (counterfoil.Session, User, error) { return counterfoil.Session{}, User{}, err }
	normal, err := normalPassword(field, password)
	if err != nil {
		return fail(err)
	}
	s, err := d.auth.Authenticate(ctx, sessionToken)
	if err != nil {
		return fail(err)
	}
	done, err := d.takeTurn(ctx, throttleKey("session", s.ID))
	if err != nil {
		return fail(err)
	}
	defer done()
	attempt, err := d.throttle.inSession(ctx, s.ID)
	if err != nil {
		return fail(err)
	}
	u, err := d.store.User(ctx, s.Subject)
	if err != nil {
		attempt.cancelled(ctx)
		return fail(storeError("read user", err))
	}
	ok, _, err := d.hasher.check(ctx, normal, u.Password)
	if err != nil {
		attempt.cancelled(ctx)
		return fail(fmt.Errorf("check password: %w", err))
	}
	if !ok || u.Rights.Disabled {
		return fail(counterfoil.ErrInvalidCredentials)
	}
	attempt.succeeded(ctx)
	return s, u, nil
}
