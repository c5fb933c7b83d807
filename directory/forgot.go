package directory

import (
	"context"
	"net/http"
	"time"
)

// How often a reset link may be asked for: for one address from one network,
// for one address from everywhere. Each ask may become a mail.
var (
	askPair    = Limit{Free: 3, Slowest: 15 * time.Minute}
	askAccount = Limit{Free: 10, Slowest: time.Hour}
)

// AllowReset counts a request for a password-reset link, which anybody can
// make for any address, before a mail is sent. It does not look whether there
// is a user, so the answer tells nothing of it: look and send after your own
// answer is out. Errors: [*counterfoil.FieldError] of the field "email",
// [*counterfoil.RateLimitedError], [verify.ErrUnavailable].
func (d *Directory) AllowReset(ctx context.Context, email string, r *http.Request) error {
	_, key, err := NormalEmail(email)
	if err != nil {
		return err
	}
	return d.throttle.askReset(ctx, key, d.network(r))
}

func (t *throttle) askReset(ctx context.Context, account string, from network) error {
	a := &attempt{throttle: t, counts: []count{
		{key: throttleKey("ask-pair", account, from.host), limit: askPair, always: true},
		{key: throttleKey("ask", account), limit: askAccount, always: true},
	}}
	if from != (network{}) {
		a.counts = append(a.counts, count{key: throttleKey("ask-network", from.host), limit: t.SignUp, always: true})
	}
	return a.begin(ctx)
}

// HasPassword reports whether the user signs in with a password, also or only.
// [counterfoil.ErrNotFound] when there is no such user.
func (d *Directory) HasPassword(ctx context.Context, userID string) (bool, error) {
	u, err := d.store.User(ctx, userID)
	if err != nil {
		return false, storeError("read user", err)
	}
	return u.Password != "", nil
}

// MinPasswordLength is how many characters a new password must have at least.
func (d *Directory) MinPasswordLength() int { return d.cfg.MinPasswordLength }
