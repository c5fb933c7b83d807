package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// SignIn is what a user signs in, or up, with.
type SignIn struct {
	Email    string
	Password string
	// Credential is what the browser made of a passkey's ceremony: the JSON
	// of PublicKeyCredential.toJSON(). For [Directory.SignInWithPasskey] and
	// [Directory.SignUpWithPasskey], which look at neither Email nor Password.
	Credential []byte
	// Request tells the device, and the network that attempts are counted
	// by; without it they are counted by account only.
	Request *http.Request
	// The rest is passed on to [counterfoil.Authority.StartSession].
	Device   *counterfoil.Device
	ClientID string
	Audience string
	Absolute time.Duration
	Idle     time.Duration
}

var passwordMethods = []string{methodPwd}

func (in *SignIn) session(subject string, epoch int64, methods []string) counterfoil.SignIn {
	return counterfoil.SignIn{
		Subject: subject, Epoch: epoch, Request: in.Request, Device: in.Device, Methods: methods,
		ClientID: in.ClientID, Audience: in.Audience, Absolute: in.Absolute, Idle: in.Idle,
	}
}

func (d *Directory) network(r *http.Request) network {
	if r == nil {
		return network{}
	}
	return networkOf(d.auth.ClientIP(r))
}

// SignUp makes a user and signs them in. Errors: [*counterfoil.FieldError];
// [counterfoil.ErrConflict] for an address that has an account already, which
// tells whoever asks that it has (use Create behind a mailed link where that
// matters); [*counterfoil.RateLimitedError]; [verify.ErrUnavailable].
func (d *Directory) SignUp(ctx context.Context, in SignIn) (*counterfoil.Grant, User, error) {
	fail := func(err error) (*counterfoil.Grant, User, error) { return nil, User{}, err }
	email, key, err := NormalEmail(in.Email)
	if err != nil {
		return fail(err)
	}
	// Before the password rules: they may ask a service.
	if err := d.throttle.signUp(ctx, d.network(in.Request)); err != nil {
		return fail(err)
	}
	password, err := d.rules.accept(ctx, "password", in.Password, key)
	if err != nil {
		return fail(err)
	}
	u := User{ID: opaque.NewID(), Email: email, EmailKey: key}
	if u.Password, err = d.hashNew(ctx, password); err != nil {
		return fail(err)
	}
	epoch, err := d.auth.Epoch(ctx, u.ID)
	if err != nil {
		return fail(err)
	}
	if u, err = d.create(ctx, u); err != nil {
		return fail(err)
	}
	grant, err := d.auth.StartSession(ctx, in.session(u.ID, epoch, passwordMethods))
	if err != nil {
		return fail(err)
	}
	return grant, u, nil
}

func (d *Directory) hashNew(ctx context.Context, password []byte) (string, error) {
	leave, err := d.hasher.enter()
	if err != nil {
		return "", err
	}
	defer leave()
	return d.hasher.hash(ctx, password)
}

// SignIn checks a password and starts a session. Unknown address, wrong
// password and disabled account are one answer, [counterfoil.ErrInvalidCredentials],
// and cost the same one hash; so is a password or account that changed
// while this call was checking it. Other errors: [*counterfoil.FieldError] for input that
// cannot be an address or a password, [*counterfoil.RateLimitedError], [verify.ErrUnavailable].
func (d *Directory) SignIn(ctx context.Context, in SignIn) (*counterfoil.Grant, error) {
	_, key, err := NormalEmail(in.Email)
	if err != nil {
		return nil, err
	}
	password, err := normalPassword("password", in.Password)
	if err != nil {
		return nil, err
	}
	from := d.network(in.Request)
	done, err := d.takeTurn(ctx, throttleKey("pair", key, from.host))
	if err != nil {
		return nil, err
	}
	defer done()
	attempt, err := d.throttle.signIn(ctx, key, from)
	if err != nil {
		return nil, err
	}
	u, err := d.signedIn(ctx, attempt, key, password)
	if err != nil {
		return nil, err
	}
	grant, err := d.auth.StartSession(ctx, in.session(u.ID, u.Epoch, passwordMethods))
	if errors.Is(err, counterfoil.ErrSignedOutMeanwhile) || errors.Is(err, counterfoil.ErrSubjectDisabled) {
		return nil, fmt.Errorf("%w: %w", counterfoil.ErrInvalidCredentials, err)
	}
	return grant, err
}

// takeTurn waits for the turn of this key and takes a place for a hash, so
// that no more attempts are counted in advance than can wait for the hash.
func (d *Directory) takeTurn(ctx context.Context, key string) (done func(), err error) {
	passed, err := d.turns.enter(ctx, key)
	if err != nil {
		return nil, err
	}
	leave, err := d.hasher.enter()
	if err != nil {
		passed()
		return nil, err
	}
	return func() { leave(); passed() }, nil
}

// signedIn is the user with this address and password, and settles the attempt.
func (d *Directory) signedIn(ctx context.Context, attempt *attempt, key string, password []byte) (User, error) {
	u, err := d.candidate(ctx, key)
	if err != nil {
		attempt.cancelled(ctx)
		return User{}, err
	}
	ok, renewed, err := d.hasher.check(ctx, password, u.Password)
	if err != nil {
		attempt.cancelled(ctx)
		return User{}, fmt.Errorf("check password: %w", err)
	}
	if !ok || u.Rights.Disabled {
		return User{}, counterfoil.ErrInvalidCredentials
	}
	attempt.succeeded(ctx)
	if renewed != "" {
		d.renew(ctx, u, renewed)
	}
	return u, nil
}

// candidate reads who might be signing in, with an epoch that is not newer
// than the password; the zero User when there is nobody with that address.
func (d *Directory) candidate(ctx context.Context, key string) (User, error) {
	u, err := d.store.ByEmail(ctx, key)
	if errors.Is(err, counterfoil.ErrNotFound) {
		return User{}, nil
	}
	if err != nil {
		return User{}, storeError("read user", err)
	}
	if u.Epoch != 0 {
		return u, nil
	}
	// The epoch first, then the password once more: read the other way round,
	// a change between the two would give an old password a new epoch.
	epoch, err := d.auth.Epoch(ctx, u.ID)
	if err != nil {
		return User{}, err
	}
	u, err = d.store.User(ctx, u.ID)
	if errors.Is(err, counterfoil.ErrNotFound) || err == nil && u.EmailKey != key {
		return User{}, nil
	}
	if err != nil {
		return User{}, storeError("read user", err)
	}
	u.Epoch = epoch
	return u, nil
}

// errSuperseded says that a user's password is not the one that was checked.
var errSuperseded = fmt.Errorf("%w: the password was changed meanwhile", counterfoil.ErrInvalidCredentials)

// renew replaces the hash of an unchanged password by one of the present
// parameters. A failure leaves the old one, which is good too.
func (d *Directory) renew(ctx context.Context, u User, renewed string) {
	_, _, err := d.store.Update(ctx, u.ID, func(now *User) (*counterfoil.Advance, error) {
		if now.Password != u.Password {
			return nil, errSuperseded
		}
		now.Password = renewed
		return nil, nil
	})
	if err != nil {
		d.log.WarnContext(ctx, "a password could not be hashed anew", "user", u.ID, "error", err)
	}
}
