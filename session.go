package counterfoil

import (
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
)

// Session is the record of one sign-in that the authority keeps. Its ID (the
// `sid`) is public and grants nothing; of the session token only the hash is
// here. Times are UTC.
type Session struct {
	ID       string
	Subject  string
	ClientID string // the application, "default" when there is one only
	ParentID string // the session this one was derived from; ends with it

	CreatedAt    time.Time
	LastActiveAt time.Time     // last use by the user, coalesced: may lag by up to a twentieth of IdleTimeout
	IdleTimeout  time.Duration // the session expires this long after LastActiveAt
	ExpiresAt    time.Time     // absolute expiry: use does not extend it

	AuthTime time.Time // when the user last proved who they are
	Methods  []string  // how (amr, RFC 8176)
	Device   Device

	// Epoch0 is the subject's epoch read before the credential was checked.
	// Below the subject's SignedOutBelow the session has ended.
	Epoch0 int64

	// Roles, Scope and Extra were given at sign-in by a backend that keeps
	// its users itself; nil Roles or Scope leave it to the subject's rights.
	Roles []string
	Scope []string
	Extra map[string]any

	SecretHash opaque.Hash

	// Binding, when not nil, ties the session to a key in the user's device:
	// the session token alone is no good any more.
	Binding *Binding

	// End says why, by whom and when the session was ended; nil while nobody
	// ended it. Expiry does not set it.
	End *End
}

// Device is what the user signed in with, as the request told.
type Device struct {
	UserAgent string // at most 256 bytes, control characters removed
	IP        string // the client's address, seen through trusted proxies only
}

// End records the end of a session. At is set by the store's clock.
type End struct {
	Reason Reason
	Actor  string // who ended it: "user", "operator", a backend's API key id, …
	At     time.Time
}

// Reason says why a session ended. It is stable: stored, sent and shown.
type Reason string

// The reasons that Counterfoil itself uses. Callers may use others: lower-case
// words joined by underscores, at most 64 characters.
const (
	SignedOut           Reason = "signed_out"            // by the user, on this device
	SignedOutEverywhere Reason = "signed_out_everywhere" // by the user, on another device
	PasswordChanged     Reason = "password_changed"
	PasswordReset       Reason = "password_reset"
	Disabled            Reason = "account_disabled"
	Deleted             Reason = "account_deleted"
	Revoked             Reason = "revoked" // by an operator or a backend
	// DeviceKeyMismatch: who held the session token of a device-bound session
	// signed with another key than the device's.
	DeviceKeyMismatch Reason = "device_key_mismatch"
)

// Status is what a session is at a given moment.
type Status string

// The three states of a session.
const (
	StatusActive  Status = "active"
	StatusRevoked Status = "revoked"
	StatusExpired Status = "expired"
)

// IdleExpiresAt is when the session expires unless it is used before.
func (s *Session) IdleExpiresAt() time.Time {
	if idle := s.LastActiveAt.Add(s.IdleTimeout); idle.Before(s.ExpiresAt) {
		return idle
	}
	return s.ExpiresAt
}

// Status tells the state at now. A session that was ended is revoked even
// after it would have expired.
func (s *Session) Status(now time.Time) Status {
	switch {
	case s.End != nil:
		return StatusRevoked
	case !now.Before(s.IdleExpiresAt()):
		return StatusExpired
	}
	return StatusActive
}

// Subject is the row that every subject has beside its sessions, also when
// the application keeps the users itself.
type Subject struct {
	ID string

	// Epoch grows by one with each change of the subject's rights; each
	// access token carries the one it was minted under.
	Epoch int64
	// SignedOutBelow ends every session whose Epoch0 is lower; SignedOut says
	// why, by whom and when for the sessions that end by it alone.
	SignedOutBelow int64
	SignedOut      *End

	Rights
}

// Rights are what a subject may do, as a directory here keeps them. They are
// committed together with the epoch. Applications with own users leave them empty.
type Rights struct {
	Roles    []string
	Scope    []string
	Disabled bool // no session may start
}

// EndOf returns the end of s as its own row or the subject's tells, or nil.
func (sub *Subject) EndOf(s *Session) *End {
	if s.End != nil {
		return s.End
	}
	if s.Epoch0 < sub.SignedOutBelow {
		if sub.SignedOut != nil {
			return sub.SignedOut
		}
		return &End{Reason: Revoked}
	}
	return nil
}

// Snapshot is a session and its subject as they stood at one moment on the
// primary, with the generation of the signing keys and the store's clock.
// Session.End is already resolved with [Subject.EndOf].
type Snapshot struct {
	Session    Session
	Subject    Subject
	KeyVersion int64
	Now        time.Time
}
