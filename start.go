package counterfoil

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil/internal/opaque"
)

// SignIn is a user who has just proved who they are.
type SignIn struct {
	// Subject is the user's id: 1 to 255 bytes of printable text, never
	// given to another user. Not an e-mail address, which can change hands.
	Subject string
	// Epoch is what [Authority.Epoch] said before the credential was
	// checked. With it a sign-in never outlives a password change that came
	// between; zero takes the epoch of this call.
	Epoch int64
	// Request tells the device: user agent and address. Device, when set, wins.
	Request *http.Request
	Device  *Device
	// Methods are how the user authenticated: amr values of RFC 8176.
	Methods []string
	// AuthTime is when; default now.
	AuthTime time.Time
	// ClientID is the application; default the configured one.
	ClientID string
	// Audience of the first access token; default the first configured one.
	Audience string
	// Absolute and Idle override the configured lifetimes of the session.
	Absolute time.Duration
	Idle     time.Duration
	// Roles, Scope and Extra are for backends that keep their users
	// themselves and have no Claims hook: they go into each access token of
	// this session. Nil leaves it to the subject's rights.
	Roles []string
	Scope []string
	Extra map[string]any
}

// Epoch returns the subject's epoch, to be read before a credential is
// checked and given to [Authority.StartSession].
func (a *Authority) Epoch(ctx context.Context, subject string) (int64, error) {
	if err := validSubject(subject); err != nil {
		return 0, err
	}
	sub, err := a.sessions.Subject(ctx, subject)
	if err != nil {
		return 0, a.storeError("read subject", err)
	}
	return sub.Epoch, nil
}

// StartSession makes a session and gives both credentials for it. Errors:
// [*FieldError]; [ErrSignedOutMeanwhile] and [ErrSubjectDisabled], which a
// sign-in page answers like wrong credentials; [verify.ErrUnavailable].
func (a *Authority) StartSession(ctx context.Context, in SignIn) (_ *Grant, err error) {
	defer func() { a.counters.signIns.count(err) }()
	iat := a.now()
	s, audience, err := a.newSession(in, iat)
	if err != nil {
		return nil, err
	}
	secret, hash := opaque.New(opaque.SessionToken, s.ID)
	s.SecretHash = hash
	snap, err := a.sessions.Insert(ctx, s)
	if err != nil {
		return nil, a.storeError("start session", err)
	}
	if err := skew(iat, snap.Now, a.now()); err != nil {
		return nil, a.withdraw(ctx, &snap, err)
	}
	grant, err := a.mint(ctx, &snap, audience, iat)
	if err != nil {
		return nil, a.withdraw(ctx, &snap, err)
	}
	grant.SessionToken = secret
	return grant, nil
}

// withdraw ends a session that was inserted but for which no token could be
// minted: its secret never left this function.
func (a *Authority) withdraw(ctx context.Context, snap *Snapshot, cause error) error {
	_, err := a.sessions.End(context.WithoutCancel(ctx), EndRequest{
		ID: snap.Session.ID, End: End{Reason: "sign_in_failed", Actor: "authority"}, Retain: a.retain(),
	})
	if err != nil {
		a.log.Warn("a session whose sign-in failed could not be ended; nobody holds its secret", "sid", snap.Session.ID, "error", err)
	}
	return cause
}

func (a *Authority) newSession(in SignIn, now time.Time) (Session, string, error) {
	if in.ClientID == "" {
		in.ClientID = a.cfg.ClientID
	}
	lifetimes := a.cfg.Lifetimes
	if in.Absolute != 0 {
		lifetimes.Absolute = in.Absolute
		lifetimes.Idle = min(lifetimes.Idle, in.Absolute)
	}
	if in.Idle != 0 {
		lifetimes.Idle = in.Idle
	}
	if in.AuthTime.IsZero() {
		in.AuthTime = now
	}
	s := Session{
		ID: opaque.NewSelector(in.Subject), Subject: in.Subject, ClientID: in.ClientID,
		CreatedAt: now, LastActiveAt: now, IdleTimeout: lifetimes.Idle, ExpiresAt: now.Add(lifetimes.Absolute),
		AuthTime: in.AuthTime.UTC(), Methods: slices.Clone(in.Methods), Device: a.device(in), Epoch0: in.Epoch,
		Roles: in.Roles, Scope: in.Scope, Extra: in.Extra,
	}
	if s.Methods == nil {
		s.Methods = []string{}
	}
	audience, err := a.audience(in.Audience)
	if err != nil {
		return Session{}, "", err
	}
	return s, audience, a.validSignIn(in, lifetimes, now)
}

func (a *Authority) validSignIn(in SignIn, lifetimes Lifetimes, now time.Time) error {
	if err := validSubject(in.Subject); err != nil {
		return err
	}
	if in.Epoch < 0 {
		return &FieldError{"epoch", "must not be negative"}
	}
	if !a.knownClient(in.ClientID) {
		return &FieldError{"client_id", fmt.Sprintf("%q is not an application of this authority", in.ClientID)}
	}
	if err := lifetimes.validate("max_age"); err != nil {
		return err
	}
	if in.AuthTime.After(now.Add(clockTolerance)) || in.AuthTime.Before(now.Add(-maxAbsolute)) {
		return &FieldError{"auth_time", "must be the past time at which the user authenticated"}
	}
	if len(in.Methods) > 8 {
		return &FieldError{"amr", "at most 8 methods"}
	}
	for i, m := range in.Methods {
		if !clientShape.MatchString(m) {
			return &FieldError{fmt.Sprintf("amr[%d]", i), fmt.Sprintf("%q is not an amr value such as \"pwd\" (RFC 8176)", m)}
		}
	}
	claims := Claims{Roles: in.Roles, Scope: in.Scope, Extra: in.Extra}
	if err := claims.validate(); err != nil {
		return err
	}
	_, err := appendExtra(nil, in.Extra)
	return err
}

func validSubject(subject string) error {
	if subject == "" || len(subject) > 255 || !printable(subject) {
		return &FieldError{"subject", "must be 1 to 255 bytes of printable text"}
	}
	return nil
}

func (a *Authority) audience(name string) (string, error) {
	if name == "" {
		return a.cfg.Audiences[0], nil
	}
	if !slices.Contains(a.cfg.Audiences, name) {
		return "", &FieldError{"audience", fmt.Sprintf("%.128q is not one of this issuer's audiences", name)}
	}
	return name, nil
}

const (
	maxUserAgent = 256
	maxIP        = 64
)

func (a *Authority) device(in SignIn) Device {
	var d Device
	switch {
	case in.Device != nil:
		d = *in.Device
	case in.Request != nil:
		d = Device{UserAgent: in.Request.UserAgent(), IP: a.ClientIP(in.Request)}
	}
	return Device{UserAgent: clean(d.UserAgent, maxUserAgent), IP: clean(d.IP, maxIP)}
}

// clean makes text from a client fit to be kept, logged and shown (SEC-124).
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
