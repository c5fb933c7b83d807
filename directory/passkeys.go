package directory

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// freshEnough is how recently the user must have proved who they are to change
// how they sign in (SEC-18).
const freshEnough = 10 * time.Minute

// Passkeys lists the passkeys of the user of a live session, oldest first.
// Errors: [*counterfoil.EndedError]; [counterfoil.ErrNotFound] for a user whom
// another system keeps; [verify.ErrUnavailable].
func (d *Directory) Passkeys(ctx context.Context, sessionToken string) ([]Passkey, error) {
	s, err := d.auth.Authenticate(ctx, sessionToken)
	if err != nil {
		return nil, err
	}
	u, err := d.Get(ctx, s.Subject)
	return u.Passkeys, err
}

// BeginAddPasskey begins the making of one more passkey for the user of a
// live session. Errors: [*counterfoil.EndedError];
// [verify.ErrInsufficientUserAuthentication] when the user last proved who they
// are more than 10 minutes ago: step up and repeat; [ErrTooManyPasskeys];
// [ErrPasskeysOff]; [counterfoil.ErrNotFound] for a user whom another system
// keeps; [*counterfoil.RateLimitedError]; [verify.ErrUnavailable].
func (d *Directory) BeginAddPasskey(ctx context.Context, sessionToken string, r *http.Request) (*PasskeyCeremony, error) {
	if !d.PasskeysOn() {
		return nil, ErrPasskeysOff
	}
	s, u, err := d.freshSession(ctx, sessionToken)
	if err != nil {
		return nil, err
	}
	if len(u.Passkeys) >= maxPasskeys {
		return nil, ErrTooManyPasskeys
	}
	c, cookie, err := d.begin(ctx, r, Ceremony{Kind: ceremonyAdd, UserID: u.ID, SessionID: s.ID})
	if err != nil {
		return nil, err
	}
	text, err := d.cfg.RelyingParty.creation(&c, u.Email, u.Passkeys)
	if err != nil {
		return nil, err
	}
	return &PasskeyCeremony{text, cookie}, nil
}

// AddPasskey checks credential, the browser's answer to
// [Directory.BeginAddPasskey] in the same session, and keeps the passkey. An
// empty name is filled in. r must bring the ceremony cookie. Errors as of
// BeginAddPasskey, and [*counterfoil.FieldError] of the fields "credential"
// and "name".
func (d *Directory) AddPasskey(ctx context.Context, sessionToken, name string, credential []byte, r *http.Request) (Passkey, error) {
	if !d.PasskeysOn() {
		return Passkey{}, ErrPasskeysOff
	}
	if _, err := passkeyName(name, nil); err != nil {
		return Passkey{}, err // before the ceremony is used up
	}
	s, before, err := d.freshSession(ctx, sessionToken)
	if err != nil {
		return Passkey{}, err
	}
	passkey, c, err := d.made(ctx, r, credential, ceremonyAdd)
	if err != nil {
		return Passkey{}, err
	}
	if c.SessionID != s.ID || c.UserID != s.Subject {
		return Passkey{}, errNoCeremony
	}
	u, _, err := d.update(ctx, s.Subject, func(stored *User) (*counterfoil.Advance, error) {
		if !stored.sameCredentials(&before) {
			return nil, errSuperseded
		}
		if len(stored.Passkeys) >= maxPasskeys {
			return nil, ErrTooManyPasskeys
		}
		if _, ok := stored.passkey(passkey.ID); ok {
			return nil, &counterfoil.FieldError{Field: "credential", Message: "is one of the user's passkeys already"}
		}
		kept, err := passkeyName(name, stored.Passkeys)
		if err != nil {
			return nil, err
		}
		passkey.Name = kept
		stored.Passkeys = append(slices.Clone(stored.Passkeys), passkey)
		return nil, nil
	})
	if err != nil {
		return Passkey{}, err
	}
	d.notify(ctx, PasskeyAdded, u, passkey, actorUser)
	return passkey, nil
}

// RenamePasskey gives a passkey of the user of a live session another name.
// Errors: [*counterfoil.EndedError];
// [verify.ErrInsufficientUserAuthentication] as of [Directory.BeginAddPasskey];
// [*counterfoil.FieldError] of the field "name"; [counterfoil.ErrNotFound]
// when the user has no such passkey; [verify.ErrUnavailable].
func (d *Directory) RenamePasskey(ctx context.Context, sessionToken, id, name string) (Passkey, error) {
	if name == "" {
		return Passkey{}, &counterfoil.FieldError{Field: "name", Message: "is required"}
	}
	kept, err := passkeyName(name, nil)
	if err != nil {
		return Passkey{}, err
	}
	s, _, err := d.freshSession(ctx, sessionToken)
	if err != nil {
		return Passkey{}, err
	}
	var renamed Passkey
	_, _, err = d.update(ctx, s.Subject, func(u *User) (*counterfoil.Advance, error) {
		p, ok := u.passkey(id)
		if !ok {
			return nil, errNoPasskey(id)
		}
		p.Name = kept
		renamed = *p
		return nil, nil
	})
	return renamed, err
}

// RemovePasskey removes a passkey of the user of a live session and ends the
// user's other sessions in the same transaction: whoever holds a lost device
// is signed out with it. Errors: [*counterfoil.EndedError] (also when this
// session ended at the same moment; the passkey is removed then);
// [verify.ErrInsufficientUserAuthentication] as of [Directory.BeginAddPasskey];
// [ErrLastPasskey] when it is the last way to sign in; [counterfoil.ErrNotFound]
// when the user has no such passkey; [verify.ErrUnavailable].
func (d *Directory) RemovePasskey(ctx context.Context, sessionToken, id string) error {
	s, before, err := d.freshSession(ctx, sessionToken)
	if err != nil {
		return err
	}
	advanced, err := d.removePasskey(ctx, s.Subject, id, actorUser, func(u *User, a *counterfoil.Advance) error {
		if !u.sameCredentials(&before) {
			return errSuperseded
		}
		if u.Password == "" && len(u.Passkeys) == 1 {
			return ErrLastPasskey
		}
		a.Keep = &counterfoil.Keep{ID: s.ID}
		return nil
	})
	if err != nil {
		return err
	}
	if advanced == nil || advanced.Kept == nil {
		if _, err := d.auth.Authenticate(ctx, sessionToken); err != nil {
			return err
		}
		return &counterfoil.EndedError{Err: counterfoil.ErrSessionUnknown, SessionID: s.ID}
	}
	return nil
}

// RemovePasskeyOf removes a passkey for an operator, also the last one, and
// signs the user out everywhere. A user who has no way in left gets one by a
// password-reset token. [counterfoil.ErrNotFound] when there is no such user
// or passkey.
func (d *Directory) RemovePasskeyOf(ctx context.Context, userID, id, actor string) error {
	_, err := d.removePasskey(ctx, userID, id, actor, nil)
	return err
}

func (d *Directory) removePasskey(ctx context.Context, userID, id, actor string, allowed func(*User, *counterfoil.Advance) error) (*counterfoil.Advanced, error) {
	var removed Passkey
	u, advanced, err := d.update(ctx, userID, func(u *User) (*counterfoil.Advance, error) {
		p, ok := u.passkey(id)
		if !ok {
			return nil, errNoPasskey(id)
		}
		removed = *p
		a := d.auth.NewAdvance(u.ID)
		a.SignOut = true
		a.End = counterfoil.End{Reason: PasskeyWasRemoved, Actor: actor}
		if allowed != nil {
			if err := allowed(u, &a); err != nil {
				return nil, err
			}
		}
		u.Passkeys = slices.DeleteFunc(slices.Clone(u.Passkeys), func(p Passkey) bool { return p.ID == id })
		return &a, nil
	})
	if err != nil {
		return nil, err
	}
	d.notify(ctx, PasskeyRemoved, u, removed, actor)
	return advanced, nil
}

func errNoPasskey(id string) error {
	return fmt.Errorf("passkey %.60q: %w", id, counterfoil.ErrNotFound)
}

// freshSession is the live session of the token, if its user proved recently
// who they are, and the user as they were before the session was found to be
// live: what changes of their credentials after that, ends the session.
func (d *Directory) freshSession(ctx context.Context, sessionToken string) (counterfoil.Session, User, error) {
	s, u, err := d.sessionUser(ctx, sessionToken)
	if err == nil && d.auth.Now().Sub(s.AuthTime) > freshEnough {
		err = &verify.Error{Status: http.StatusUnauthorized, Code: verify.CodeInsufficientAuth, MaxAge: freshEnough}
	}
	return s, u, err
}

func (d *Directory) sessionUser(ctx context.Context, sessionToken string) (counterfoil.Session, User, error) {
	fail := func(err error) (counterfoil.Session, User, error) { return counterfoil.Session{}, User{}, err }
	s, err := d.auth.Authenticate(ctx, sessionToken)
	if err != nil {
		return fail(err)
	}
	u, err := d.store.User(ctx, s.Subject)
	if err != nil {
		return fail(storeError("read user", err))
	}
	// Once more, now that the user was read.
	if s, err = d.auth.Authenticate(ctx, sessionToken); err != nil {
		return fail(err)
	}
	if u.Rights.Disabled {
		return fail(counterfoil.ErrInvalidCredentials)
	}
	return s, u, nil
}

// sameCredentials says whether nothing was set, added or removed since.
func (u *User) sameCredentials(before *User) bool {
	return u.Password == before.Password && !u.Rights.Disabled &&
		slices.EqualFunc(u.Passkeys, before.Passkeys, func(a, b Passkey) bool { return a.ID == b.ID })
}

// StepUpOptions are the ways in which the user of a session can prove again
// who they are.
type StepUpOptions struct {
	Passkey  *PasskeyCeremony // nil: the user has none, or passkeys are off
	Password bool             // the user has one
}

// BeginStepUp says how the user of a live session can prove again who they
// are, and begins it for a passkey. Errors: [*counterfoil.EndedError];
// [counterfoil.ErrNotFound] for a user whom another system keeps;
// [*counterfoil.RateLimitedError]; [verify.ErrUnavailable].
func (d *Directory) BeginStepUp(ctx context.Context, sessionToken string, r *http.Request) (*StepUpOptions, error) {
	s, u, err := d.sessionUser(ctx, sessionToken)
	if err != nil {
		return nil, err
	}
	ways := &StepUpOptions{Password: u.Password != ""}
	if !d.PasskeysOn() || len(u.Passkeys) == 0 {
		return ways, nil
	}
	c, cookie, err := d.begin(ctx, r, Ceremony{Kind: ceremonyStepUp, UserID: u.ID, SessionID: s.ID})
	if err != nil {
		return nil, err
	}
	text, err := d.cfg.RelyingParty.request(&c, u.Passkeys)
	if err != nil {
		return nil, err
	}
	ways.Passkey = &PasskeyCeremony{text, cookie}
	return ways, nil
}

// StepUpWithPasskey is [Directory.StepUp] with credential, the browser's
// answer to [Directory.BeginStepUp] in the same session. r must bring the
// ceremony cookie. Errors as of [Directory.SignInWithPasskey], and
// [*counterfoil.EndedError].
func (d *Directory) StepUpWithPasskey(ctx context.Context, sessionToken string, credential []byte, r *http.Request) (*counterfoil.Grant, error) {
	if !d.PasskeysOn() {
		return nil, ErrPasskeysOff
	}
	answer, err := parseAssertion(credential)
	if err != nil {
		return nil, err
	}
	s, u, err := d.sessionUser(ctx, sessionToken)
	if err != nil {
		return nil, err
	}
	c, err := d.take(ctx, r, answer.client.challenge, ceremonyStepUp)
	if err != nil {
		return nil, err
	}
	if c.SessionID != s.ID || c.UserID != u.ID {
		return nil, errNoCeremony
	}
	if err := d.usePasskey(ctx, &u, &c, answer); err != nil {
		return nil, err
	}
	return d.auth.Reauthenticated(ctx, r, s, passkeyMethods)
}
