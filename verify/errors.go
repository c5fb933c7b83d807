package verify

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The codes of refusals. They are stable and are what clients act on.
const (
	CodeTokenInvalid        = "token_invalid"                    // 401: malformed, signature, unknown or revoked key; refresh once, then report
	CodeTokenExpired        = "token_expired"                    // 401: refresh once and repeat
	CodeTokenStale          = "token_stale"                      // 401: rights changed; refresh once and repeat
	CodeTokenRevoked        = "token_revoked"                    // 401: refresh once and repeat
	CodeTokenTooOld         = "token_too_old"                    // 401: older than the route takes; refresh once and repeat
	CodeAudienceMismatch    = "audience_mismatch"                // 403: made for another service
	CodeInsufficientScope   = "insufficient_scope"               // 403: a scope or role is missing
	CodeInsufficientAuth    = "insufficient_user_authentication" // 401: step up and repeat (RFC 9470)
	CodeSessionRevoked      = "session_revoked"                  // 401: ended; sign in
	CodeSessionExpired      = "session_expired"                  // 401: ended; sign in
	CodeSessionUnknown      = "session_unknown"                  // 401: ended; sign in
	CodeCredentialMissing   = "credential_missing"               // 401: the session has not ended
	CodeCredentialAmbiguous = "credential_ambiguous"             // 401: more than one credential; the session has not ended
	CodeProofRequired       = "proof_required"                   // 401: the device has to prove itself; the session has not ended
	CodeInvalidRequest      = "invalid_request"                  // mend the request
	CodeUnavailable         = "unavailable"                      // 503: wait
)

// Families of errors, for errors.Is. Every error that a [Verifier] returns
// for a request belongs to one of them.
var (
	// ErrUnauthenticated: there is no good credential (401).
	ErrUnauthenticated error = &Error{Status: http.StatusUnauthorized}
	// ErrForbidden: the credential is good but not for this (403).
	ErrForbidden error = &Error{Status: http.StatusForbidden}
	// ErrUnavailable: it could not be found out, so it was refused (503).
	ErrUnavailable error = &Error{Status: http.StatusServiceUnavailable, Code: CodeUnavailable}
)

// Causes, for errors.Is. Each belongs to the family of its status.
var (
	ErrTokenInvalid                   error = &Error{Status: http.StatusUnauthorized, Code: CodeTokenInvalid}
	ErrTokenExpired                   error = &Error{Status: http.StatusUnauthorized, Code: CodeTokenExpired}
	ErrTokenStale                     error = &Error{Status: http.StatusUnauthorized, Code: CodeTokenStale}
	ErrTokenRevoked                   error = &Error{Status: http.StatusUnauthorized, Code: CodeTokenRevoked}
	ErrTokenTooOld                    error = &Error{Status: http.StatusUnauthorized, Code: CodeTokenTooOld}
	ErrAudienceMismatch               error = &Error{Status: http.StatusForbidden, Code: CodeAudienceMismatch}
	ErrInsufficientScope              error = &Error{Status: http.StatusForbidden, Code: CodeInsufficientScope}
	ErrInsufficientUserAuthentication error = &Error{Status: http.StatusUnauthorized, Code: CodeInsufficientAuth}
	ErrSessionRevoked                 error = &Error{Status: http.StatusUnauthorized, Code: CodeSessionRevoked}
	ErrSessionExpired                 error = &Error{Status: http.StatusUnauthorized, Code: CodeSessionExpired}
	ErrSessionUnknown                 error = &Error{Status: http.StatusUnauthorized, Code: CodeSessionUnknown}
	ErrCredentialMissing              error = &Error{Status: http.StatusUnauthorized, Code: CodeCredentialMissing}
	ErrCredentialAmbiguous            error = &Error{Status: http.StatusUnauthorized, Code: CodeCredentialAmbiguous}
	// ErrProofRequired: the session is bound to a device, and the cookie that
	// proves the device is missing or over.
	ErrProofRequired error = &Error{Status: http.StatusUnauthorized, Code: CodeProofRequired}
	// ErrProofRefused: the proof that a device gave of itself is not good.
	ErrProofRefused error = &Error{Status: http.StatusForbidden, Code: CodeProofRequired}
	// ErrCrossOrigin: a request of an unsafe method came with a cookie from
	// another origin (see [Cookie]).
	ErrCrossOrigin error = &Error{Status: http.StatusForbidden, Code: CodeInvalidRequest, Field: "Origin"}
)

// Error is a refusal. Compare it with errors.Is and the values above; take it
// with errors.As for what it carries. [WriteError] puts all of it on the wire
// but Cause.
type Error struct {
	Status int    // HTTP status
	Code   string // one of the Code constants
	Field  string // the header or member that is at fault, where one is

	Scope     []string      // insufficient_scope: the scope the route asks for
	MaxAge    time.Duration // insufficient_user_authentication: the age the route takes
	ACRValues []string      // insufficient_user_authentication
	Ended     *Ended        // session_…: what is known of the end
	// RetryAfter, for unavailable, is when to try again; 0 for a second.
	RetryAfter time.Duration

	// Cause says in detail what is wrong. It is for logs: clients learn only
	// Code, since what a forger gets wrong is no business of the forger.
	// It never holds a token.
	Cause error
}

// Ended tells of the end of a session to the one who held it.
type Ended struct {
	SessionID string
	Reason    string
	At        time.Time
}

func (e *Error) Error() string {
	name := e.Code
	if name == "" {
		name = http.StatusText(e.Status)
	}
	if e.Cause != nil {
		return fmt.Sprintf("%s: %v", name, e.Cause)
	}
	return name
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is find the family and the cause.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Status == e.Status && (t.Code == "" || t.Code == e.Code)
}

// because returns the sentinel with a cause for the logs.
func because(sentinel error, cause error) error {
	e := *sentinel.(*Error)
	e.Cause = cause
	return &e
}

// invalid is because(ErrTokenInvalid) with a fixed text.
func invalid(cause string) error { return because(ErrTokenInvalid, errors.New(cause)) }

// ConfigError says which field of [Config] cannot be used, and why.
type ConfigError struct {
	Field   string
	Problem string
}

func (e *ConfigError) Error() string {
	return "verify: Config." + e.Field + ": " + e.Problem
}
