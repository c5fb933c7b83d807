package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/problem"
	"github.com/counterfoil/counterfoil/verify"
)

// inputError is input that is refused before any work is done.
type inputError struct {
	status  int
	field   string
	message string
}

func (e *inputError) Error() string { return e.field + " " + e.message }

func bad(field, message string) error {
	return &inputError{http.StatusBadRequest, field, message}
}

// notFoundError is 404 with a text of its own.
type notFoundError struct{ message string }

func (e *notFoundError) Error() string { return e.message }

// conflictError is 409 with a text of its own.
type conflictError struct{ field, message string }

func (e *conflictError) Error() string { return e.message }

// fail answers with the problem that err stands for. It is the one place where
// errors become answers. route may be nil.
func (a *api) fail(w http.ResponseWriter, r *http.Request, route *route, err error) {
	w = bodiless(w, r)
	p := describe(route, err)
	if p.Status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		level := slog.LevelWarn
		if p.Status == http.StatusInternalServerError {
			level = slog.LevelError
		}
		a.log.Log(r.Context(), level, "request failed",
			"request_id", requestID(w), "method", printable(r.Method), "route", routeOf(w), "status", p.Status, "error", redact(err.Error()))
	}
	noteCode(w, p.Code)
	h := w.Header()
	var e *verify.Error
	switch {
	case p.Code == verify.CodeCredentialMissing:
		h.Set("WWW-Authenticate", challenge)
	case errors.As(err, &e) && e.Code == p.Code:
		verify.WriteError(w, r, err)
		return
	case p.Code == codeInvalidCredentials:
		h.Set("WWW-Authenticate", challenge)
	case p.Status == http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
	if limited := (*counterfoil.RateLimitedError)(nil); errors.As(err, &limited) {
		h.Set("Retry-After", strconv.Itoa(wholeSeconds(limited.RetryAfter)))
	}
	p.Field, p.Detail = redact(p.Field), redact(p.Detail)
	problem.Write(w, p)
}

const challenge = `Bearer realm="counterfoil"`

// wholeSeconds rounds up, to at least one.
func wholeSeconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

// missing tells what the credential of a route is.
var missing = map[credential]string{
	userSession:   "The request carries no session: send the session cookie, or the session token as Authorization: Bearer cf_st_…",
	apiKey:        "The request carries no API key: send it as Authorization: Bearer cf_sk_…",
	anyCredential: "The request carries neither a session cookie nor an access token: sign in, or send Authorization: Bearer",
}

func describe(route *route, err error) problem.Problem {
	var (
		input    *inputError
		field    *counterfoil.FieldError
		limited  *counterfoil.RateLimitedError
		notFound *notFoundError
		conflict *conflictError
		refused  *verify.Error
	)
	switch {
	case errors.As(err, &input):
		return problem.Problem{Status: input.status, Code: verify.CodeInvalidRequest, Field: input.field, Detail: input.Error() + "."}
	case errors.As(err, &field):
		if route != nil && !route.takes.has(field.Field) {
			// Nobody sent this: it is our configuration, such as a claims hook, that is at fault.
			break
		}
		return problem.Problem{Status: http.StatusBadRequest, Code: verify.CodeInvalidRequest, Field: field.Field, Detail: field.Field + " " + field.Message + "."}
	case errors.Is(err, verify.ErrCredentialMissing) && route != nil && missing[route.credential] != "":
		return problem.Problem{Status: http.StatusUnauthorized, Code: verify.CodeCredentialMissing, Detail: missing[route.credential]}
	case errors.As(err, &limited):
		return problem.Problem{Status: http.StatusTooManyRequests, Code: codeRateLimited, Detail: "Too many attempts. Wait as long as the header Retry-After says."}
	case errors.Is(err, directory.ErrPasskeyRefused):
		return problem.Problem{Status: http.StatusUnauthorized, Code: codeInvalidCredentials, Detail: "This passkey is not taken here. Sign in another way."}
	case errors.Is(err, counterfoil.ErrInvalidCredentials):
		return problem.Problem{Status: http.StatusUnauthorized, Code: codeInvalidCredentials, Detail: "The e-mail address or the password is not right."}
	case errors.Is(err, counterfoil.ErrSignedOutMeanwhile):
		return problem.Problem{Status: http.StatusConflict, Code: codeConflict, Field: "epoch", Detail: "The user was signed out everywhere while signing in. Check the credential again, with a new epoch."}
	case errors.Is(err, counterfoil.ErrSubjectDisabled):
		return problem.Problem{Status: http.StatusConflict, Code: codeConflict, Field: "subject", Detail: "The user is disabled."}
	case errors.Is(err, counterfoil.ErrConflict):
		return problem.Problem{Status: http.StatusConflict, Code: codeConflict, Field: "email", Detail: "This e-mail address has an account already."}
	case errors.As(err, &conflict):
		return problem.Problem{Status: http.StatusConflict, Code: codeConflict, Field: conflict.field, Detail: conflict.message}
	case errors.As(err, &notFound):
		return problem.Problem{Status: http.StatusNotFound, Code: codeNotFound, Detail: notFound.message}
	case errors.Is(err, counterfoil.ErrNotFound):
		return problem.Problem{Status: http.StatusNotFound, Code: codeNotFound, Detail: "There is nothing with this id."}
	case errors.As(err, &refused) && refused.Code != "":
		return problem.Problem{Status: refused.Status, Code: refused.Code}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem.Problem{Status: http.StatusServiceUnavailable, Code: verify.CodeUnavailable, Detail: "This took too long. Try again."}
	}
	return problem.Problem{Status: http.StatusInternalServerError, Code: codeInternal, Detail: "Something went wrong here. It has been logged under the X-Request-Id of this answer."}
}
