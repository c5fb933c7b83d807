package directory

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// errBadReset is one answer to a token that is malformed, unknown, used,
// replaced or expired.
var errBadReset = &counterfoil.FieldError{Field: "token", Message: "is not a good password-reset token: it was used or replaced, has expired, or was copied incompletely; ask for another"}

// NewPasswordReset makes the one-time token that lets the user set a new
// password, for your mail to carry. It replaces an earlier one. The link's
// host must come from your configuration, never from the request's Host.
// [counterfoil.ErrNotFound] when there is no such user.
func (d *Directory) NewPasswordReset(ctx context.Context, userID string) (token counterfoil.Secret, expires time.Time, err error) {
	if !opaque.IsSelector(userID) {
		return counterfoil.Secret{}, time.Time{}, counterfoil.ErrNotFound
	}
	secret, hash := opaque.New(opaque.PasswordReset, userID)
	expires = d.auth.Now().Add(d.cfg.ResetLifetime).Truncate(time.Second)
	_, _, err = d.update(ctx, userID, func(u *User) (*counterfoil.Advance, error) {
		u.ResetHash, u.ResetExpiresAt = hash, expires
		return nil, nil
	})
	if err != nil {
		return counterfoil.Secret{}, time.Time{}, err
	}
	return secret, expires, nil
}

// ResetPassword sets a new password for the holder of a reset token, uses the
// token up, ends all sessions of the user and removes their passkeys: whoever
// reads the mail of the address gets the account to themselves, also where
// somebody else signed up with the address before. It signs nobody in. r, which
// may be nil, tells the network that is to count as known from now on, where
// the user may try anew although others guessed. Errors:
// [*counterfoil.FieldError] (a refused new password leaves the token good),
// [verify.ErrUnavailable].
func (d *Directory) ResetPassword(ctx context.Context, token, next string, r *http.Request) error {
	parsed, err := opaque.Parse(opaque.PasswordReset, token)
	if err != nil {
		return errBadReset
	}
	u, err := d.store.User(ctx, parsed.Selector)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return errBadReset
	}
	if err != nil {
		return storeError("read user", err)
	}
	if !parsed.Matches(u.ResetHash) || !d.auth.Now().Before(u.ResetExpiresAt) {
		return errBadReset
	}
	hash, err := d.newHash(ctx, next, u.EmailKey)
	if err != nil {
		return err
	}
	var removed []Passkey
	u, _, err = d.update(ctx, u.ID, func(stored *User) (*counterfoil.Advance, error) {
		// Of two that come at once only one finds the token here.
		if subtle.ConstantTimeCompare(stored.ResetHash[:], u.ResetHash[:]) != 1 {
			return nil, errBadReset
		}
		setPassword(stored, hash)
		removed, stored.Passkeys = stored.Passkeys, nil
		advance := d.auth.NewAdvance(stored.ID)
		advance.SignOut = true
		advance.End = counterfoil.End{Reason: counterfoil.PasswordReset, Actor: actorUser}
		return &advance, nil
	})
	if errors.Is(err, counterfoil.ErrNotFound) {
		return errBadReset
	}
	if err != nil {
		return err
	}
	d.throttle.welcome(ctx, u.EmailKey, d.network(r))
	for _, p := range removed {
		d.notify(ctx, PasskeyRemoved, u, p, actorUser)
	}
	return nil
}

// setPassword makes an outstanding reset token void with it.
func setPassword(u *User, hash string) {
	u.Password = hash
	u.ResetHash, u.ResetExpiresAt = opaque.Hash{}, time.Time{}
}
