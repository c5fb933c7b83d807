package counterfoil

import (
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// The three answers that end a session, told apart from everything else: only
// they sign a client out. They come as an [*EndedError].
var (
	// ErrSessionRevoked says that somebody ended the session.
	ErrSessionRevoked = verify.ErrSessionRevoked
	// ErrSessionExpired says that the session reached its idle or absolute end.
	ErrSessionExpired = verify.ErrSessionExpired
	// ErrSessionUnknown says that there is no such session, or that the
	// session token is malformed or its secret is not this session's.
	ErrSessionUnknown = verify.ErrSessionUnknown
)

var (
	// ErrInvalidCredentials is the one answer to an unknown user, a wrong
	// password and a disabled account.
	ErrInvalidCredentials = errors.New("invalid credentials")
	// ErrConflict says that what was to be made exists already.
	ErrConflict = errors.New("conflict")
	// ErrClockSkew says that this node's clock is too far from the store's to mint.
	ErrClockSkew = errors.New("this node's clock is more than 5 s from the store's")
)

// EndedError is the end of a session as told to the holder of its secret. It
// wraps [ErrSessionRevoked], [ErrSessionExpired] or [ErrSessionUnknown].
type EndedError struct {
	Err       error
	SessionID string // empty when unknown
	Reason    Reason // empty when it expired or is unknown
	EndedAt   time.Time
}

func (e *EndedError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%v: %s", e.Err, e.Reason)
	}
	return e.Err.Error()
}

// Unwrap returns the sentinel together with what [verify.WriteError] tells the holder.
func (e *EndedError) Unwrap() error {
	var sentinel *verify.Error
	if e.SessionID == "" || !errors.As(e.Err, &sentinel) {
		return e.Err
	}
	told := *sentinel
	told.Ended = &verify.Ended{SessionID: e.SessionID, Reason: string(e.Reason), At: e.EndedAt}
	return &told
}

// FieldError is bad input: it names the field and the fix.
type FieldError struct {
	Field   string
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// RateLimitedError asks the caller to wait.
type RateLimitedError struct{ RetryAfter time.Duration }

func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("too many attempts, try again in %s", e.RetryAfter.Round(time.Second))
}
