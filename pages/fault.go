package pages

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// faultError is what went wrong, for a person.
type faultError struct {
	status int
	title  string
	text   string
	field  string // of the form, where one is at fault
	// Clear offers to clear the cookies.
	Clear bool
}

func (e *faultError) Error() string { return e.text }

// Text is for the template.
func (e *faultError) Text() string { return e.text }

var (
	errNoPage    = &faultError{status: http.StatusNotFound, title: "No such page", text: "There is no page at this address."}
	errMethod    = &faultError{status: http.StatusMethodNotAllowed, title: "No such page", text: "This address cannot be called like this."}
	errOtherSite = &faultError{status: http.StatusForbidden, title: "Not done", text: "This came from another site, so nothing was done. Open the page here and try again."}
	errNoForm    = &faultError{status: http.StatusBadRequest, title: "Not done", text: "The form did not arrive as it should. Go back and send it again."}
	errTooLarge  = &faultError{status: http.StatusRequestEntityTooLarge, title: "Not done", text: "The form is too large."}
	errBroken    = &faultError{status: http.StatusInternalServerError, title: "Something went wrong", text: "Something went wrong here, and it has been noted. Try again in a moment."}
	errTwo       = &faultError{
		status: http.StatusUnauthorized, title: "Two sign-ins at once", Clear: true,
		text: "This browser sent two session cookies, so it cannot be told which one is yours. Clear them, and sign in again.",
	}
)

// fields are what people call the fields of errors.
var fields = map[string]string{
	"email": "The e-mail address", "password": "The password", "current": "The present password",
	"new": "The new password", "token": "The code", "name": "The name", "credential": "The passkey",
}

// inWords says what an error means to who sits there. What is not theirs to
// know goes to the log.
func (v *visit) inWords(err error) *faultError {
	var (
		fault   *faultError
		field   *counterfoil.FieldError
		limited *counterfoil.RateLimitedError
	)
	switch {
	case errors.As(err, &fault):
		return fault
	case errors.As(err, &field) && fields[field.Field] != "":
		return &faultError{status: http.StatusBadRequest, title: "Not done", text: fields[field.Field] + " " + field.Message + ".", field: field.Field}
	case errors.Is(err, counterfoil.ErrInvalidCredentials):
		return &faultError{status: http.StatusUnauthorized, title: "Not signed in", text: "The e-mail address or the password is not right."}
	case errors.As(err, &limited):
		v.w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(limited.RetryAfter.Seconds())))))
		return &faultError{status: http.StatusTooManyRequests, title: "Too many attempts", text: "Too many attempts. Wait " + inWords(limited.RetryAfter) + ", then try again."}
	case errors.Is(err, verify.ErrCredentialAmbiguous):
		return errTwo
	case errors.Is(err, verify.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		v.log.WarnContext(v.r.Context(), "a page could not be served", "page", v.page(), "error", err)
		v.w.Header().Set("Retry-After", "5")
		return &faultError{status: http.StatusServiceUnavailable, title: "Not now", text: "This cannot be done right now. Nothing was lost: try again in a moment."}
	case errors.Is(err, context.Canceled):
		return errBroken // there is nobody left to tell
	}
	v.log.ErrorContext(v.r.Context(), "a page failed", "page", v.page(), "error", err)
	return errBroken
}

// inWords is a time to wait.
func inWords(d time.Duration) string {
	count := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch seconds := int(math.Ceil(d.Seconds())); {
	case seconds <= 90:
		return count(max(1, seconds), "second")
	default:
		return count((seconds+59)/60, "minute")
	}
}

// ends reports whether the session has ended or is missing: then it is not the
// form that has to be mended.
func ends(err error) bool {
	var ended *counterfoil.EndedError
	return errors.As(err, &ended) || errors.Is(err, verify.ErrCredentialMissing) ||
		errors.Is(err, verify.ErrCredentialAmbiguous) || errors.Is(err, verify.ErrProofRequired)
}

// again shows a form once more, with what is wrong and what was typed.
func (v *visit) again(err error, form func(*view) error) error {
	if ends(err) {
		return err
	}
	fault := v.inWords(err)
	data := v.view("")
	data.Alert, data.Field = fault.text, fault.field
	data.Typed = v.form.Get("email")
	data.status = fault.status
	return form(data)
}
