package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// PasskeysOn says whether passkeys can be used here; see [RelyingParty].
func (d *Directory) PasskeysOn() bool { return d.cfg.RelyingParty.ID != "" }

// BeginPasskeySignIn begins a sign-in with whichever passkey the browser has
// for this host, offered by a button or by the autofill of an input
// (mediation "conditional"). Nobody is named, so nothing about any account is
// told. r brings the browser's ceremony cookie and the network that is
// counted. Errors: [ErrPasskeysOff], [*counterfoil.RateLimitedError],
// [verify.ErrUnavailable].
func (d *Directory) BeginPasskeySignIn(ctx context.Context, r *http.Request) (*PasskeyCeremony, error) {
	if !d.PasskeysOn() {
		return nil, ErrPasskeysOff
	}
	c, cookie, err := d.begin(ctx, r, Ceremony{Kind: ceremonySignIn})
	if err != nil {
		return nil, err
	}
	text, err := d.cfg.RelyingParty.request(&c, nil)
	if err != nil {
		return nil, err
	}
	return &PasskeyCeremony{text, cookie}, nil
}

// SignInWithPasskey checks in.Credential, the browser's answer to
// [Directory.BeginPasskeySignIn], and starts a session; Email and Password are
// not looked at. in.Request must bring the ceremony cookie. Errors:
// [counterfoil.ErrInvalidCredentials] for a passkey that is unknown, removed,
// does not verify or is of a disabled user; [*counterfoil.FieldError] of the
// field "credential" for an answer that cannot be read, or to a ceremony that
// is not open in this browser; [ErrPasskeysOff]; [verify.ErrUnavailable].
func (d *Directory) SignInWithPasskey(ctx context.Context, in SignIn) (*counterfoil.Grant, error) {
	if !d.PasskeysOn() {
		return nil, ErrPasskeysOff
	}
	answer, err := parseAssertion(in.Credential)
	if err != nil {
		return nil, err
	}
	c, err := d.take(ctx, in.Request, answer.client.challenge, ceremonySignIn)
	if err != nil {
		return nil, err
	}
	// The epoch comes with the user, before the passkey is looked at.
	u, err := d.candidateByID(ctx, answer.handle)
	if err != nil {
		return nil, err
	}
	if err := d.usePasskey(ctx, &u, &c, answer); err != nil {
		return nil, err
	}
	grant, err := d.auth.StartSession(ctx, in.session(u.ID, u.Epoch, passkeyMethods))
	if errors.Is(err, counterfoil.ErrSignedOutMeanwhile) || errors.Is(err, counterfoil.ErrSubjectDisabled) {
		return nil, fmt.Errorf("%w: %w", ErrPasskeyRefused, err)
	}
	return grant, err
}

// candidateByID is candidate for a user handle; the zero User when there is
// nobody with it.
func (d *Directory) candidateByID(ctx context.Context, id string) (User, error) {
	if !opaque.IsSelector(id) {
		return User{}, nil
	}
	u, err := d.store.User(ctx, id)
	if err == nil && u.Epoch == 0 {
		// The store cannot read both at once: the epoch first.
		var epoch int64
		if epoch, err = d.auth.Epoch(ctx, id); err != nil {
			return User{}, err
		}
		u, err = d.store.User(ctx, id)
		u.Epoch = epoch
	}
	if errors.Is(err, counterfoil.ErrNotFound) {
		return User{}, nil
	}
	if err != nil {
		return User{}, storeError("read user", err)
	}
	return u, nil
}

// usePasskey verifies an answer with the user's passkey and writes down its use.
func (d *Directory) usePasskey(ctx context.Context, u *User, c *Ceremony, answer *assertion) error {
	key, ok := u.passkey(answer.id)
	if !ok {
		return passkeyRefused("there is no such passkey")
	}
	if u.Rights.Disabled {
		return passkeyRefused("the user is disabled")
	}
	if err := answer.verify(&d.cfg.RelyingParty, c.Challenge, u, key); err != nil {
		return err
	}
	data := answer.parsed.Response.AuthenticatorData
	used, wentBack := *key, false
	now := d.auth.Now()
	updated, _, err := d.store.Update(ctx, u.ID, func(stored *User) (*counterfoil.Advance, error) {
		kept, ok := stored.passkey(answer.id)
		if !ok || !bytes.Equal(kept.PublicKey, key.PublicKey) || stored.Rights.Disabled {
			return nil, passkeyRefused("it was removed meanwhile")
		}
		// A count that does not grow may be a copy, or an authenticator that
		// was reset (section 6.1.1). It is told, not acted upon: who copied a
		// key could as well be the first to use it.
		wentBack = (data.Counter != 0 || kept.SignCount != 0) && data.Counter <= kept.SignCount
		kept.SignCount = max(kept.SignCount, data.Counter)
		kept.BackedUp = data.Flags.HasBackupState()
		kept.LastUsedAt = now
		used = *kept
		return nil, nil
	})
	if errors.Is(err, counterfoil.ErrNotFound) {
		return passkeyRefused("the user was deleted meanwhile")
	}
	if err != nil {
		return storeError("use passkey", err)
	}
	if wentBack {
		d.log.WarnContext(ctx, "a passkey counted backwards: it may have been copied, or its authenticator was reset",
			"user", u.ID, "passkey", answer.id, "count", data.Counter, "highest", used.SignCount)
		d.notify(ctx, PasskeyCounterWentBack, updated, used, actorUser)
	}
	return nil
}

// BeginPasskeySignUp begins the making of a user who signs in with a passkey
// and has no password. Errors: [*counterfoil.FieldError];
// [counterfoil.ErrConflict] for an address that has an account already, as
// [Directory.SignUp] says it; [*counterfoil.RateLimitedError];
// [ErrPasskeysOff]; [verify.ErrUnavailable].
func (d *Directory) BeginPasskeySignUp(ctx context.Context, email string, r *http.Request) (*PasskeyCeremony, error) {
	if !d.PasskeysOn() {
		return nil, ErrPasskeysOff
	}
	email, key, err := NormalEmail(email)
	if err != nil {
		return nil, err
	}
	if err := d.throttle.signUp(ctx, d.network(r)); err != nil {
		return nil, err
	}
	// Said before the device keeps a passkey for nothing.
	switch _, err := d.store.ByEmail(ctx, key); {
	case err == nil:
		return nil, storeError("begin sign-up", ErrEmailTaken)
	case !errors.Is(err, counterfoil.ErrNotFound):
		return nil, storeError("read user", err)
	}
	c, cookie, err := d.begin(ctx, r, Ceremony{Kind: ceremonySignUp, UserID: opaque.NewID(), Email: email})
	if err != nil {
		return nil, err
	}
	text, err := d.cfg.RelyingParty.creation(&c, email, nil)
	if err != nil {
		return nil, err
	}
	return &PasskeyCeremony{text, cookie}, nil
}

// SignUpWithPasskey checks in.Credential, the browser's answer to
// [Directory.BeginPasskeySignUp], makes the user and signs them in; the
// address is that of the beginning. That it belongs to them is not proved.
// Errors as of [Directory.BeginPasskeySignUp], and [*counterfoil.FieldError]
// of the field "credential".
func (d *Directory) SignUpWithPasskey(ctx context.Context, in SignIn) (*counterfoil.Grant, User, error) {
	fail := func(err error) (*counterfoil.Grant, User, error) { return nil, User{}, err }
	if !d.PasskeysOn() {
		return fail(ErrPasskeysOff)
	}
	passkey, c, err := d.made(ctx, in.Request, in.Credential, ceremonySignUp)
	if err != nil {
		return fail(err)
	}
	email, key, err := NormalEmail(c.Email)
	if err != nil {
		return fail(err)
	}
	if passkey.Name, err = passkeyName("", nil); err != nil {
		return fail(err)
	}
	passkey.LastUsedAt = passkey.CreatedAt
	epoch, err := d.auth.Epoch(ctx, c.UserID)
	if err != nil {
		return fail(err)
	}
	u, err := d.create(ctx, User{ID: c.UserID, Email: email, EmailKey: key, Passkeys: []Passkey{passkey}})
	if err != nil {
		return fail(err)
	}
	grant, err := d.auth.StartSession(ctx, in.session(u.ID, epoch, passkeyMethods))
	if err != nil {
		return fail(err)
	}
	return grant, u, nil
}

// made is the new passkey of a ceremony, verified.
func (d *Directory) made(ctx context.Context, r *http.Request, credential []byte, kind string) (Passkey, Ceremony, error) {
	fail := func(err error) (Passkey, Ceremony, error) { return Passkey{}, Ceremony{}, err }
	answer, err := parseAttestation(credential)
	if err != nil {
		return fail(err)
	}
	c, err := d.take(ctx, r, answer.client.challenge, kind)
	if err != nil {
		return fail(err)
	}
	passkey, err := answer.verify(&d.cfg.RelyingParty, c.Challenge)
	if err != nil {
		return fail(err)
	}
	passkey.CreatedAt = d.auth.Now()
	return passkey, c, nil
}
