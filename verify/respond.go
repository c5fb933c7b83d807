package verify

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/problem"
)

// details tells a person what each code means. One text a code: what exactly
// is wrong with a token is not said to whoever sent it.
var details = map[string]string{
	CodeTokenInvalid:        "The access token is not valid here. Refresh it once.",
	CodeTokenExpired:        "The access token has expired. Refresh it.",
	CodeTokenStale:          "The rights of this user have changed since the access token was issued. Refresh it.",
	CodeTokenRevoked:        "The access token has been revoked. Refresh it.",
	CodeTokenTooOld:         "The access token is older than this resource accepts. Refresh it.",
	CodeAudienceMismatch:    "The access token was issued for another service.",
	CodeInsufficientScope:   "The access token does not grant what this resource asks for.",
	CodeInsufficientAuth:    "This resource asks for a more recent or stronger authentication.",
	CodeSessionRevoked:      "The session has been ended. Sign in again.",
	CodeSessionExpired:      "The session has expired. Sign in again.",
	CodeSessionUnknown:      "There is no such session. Sign in again.",
	CodeCredentialMissing:   "The request carries no access token.",
	CodeCredentialAmbiguous: "The request carries more than one credential.",
	CodeProofRequired:       "The session is bound to a device, which has to prove itself again.",
	CodeInvalidRequest:      "The request came from an origin that may not send it.",
	CodeUnavailable:         "This cannot be verified at the moment. Try again.",
}

// WriteError answers a request that was refused: RFC 9457 problem+json with a
// code, and for refusals of access tokens the challenge of RFC 6750 section 3
// and RFC 9470. An error that is no [Error] is answered as unavailable: what
// is not understood is refused, and its text stays here.
func WriteError(w http.ResponseWriter, _ *http.Request, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Code == "" {
		e = ErrUnavailable.(*Error)
	}
	p := problem.Problem{Status: e.Status, Code: e.Code, Detail: details[e.Code], Field: e.Field, Extra: map[string]any{}}
	switch {
	case e.Code == CodeInsufficientAuth:
		if e.MaxAge > 0 {
			p.Extra["max_age"] = wholeSeconds(e.MaxAge)
		}
		if len(e.ACRValues) > 0 {
			p.Extra["acr_values"] = strings.Join(e.ACRValues, " ")
		}
	case e.Code == CodeInsufficientScope && len(e.Scope) > 0:
		p.Extra["scope"] = strings.Join(e.Scope, " ")
	case e.Ended != nil:
		p.Extra["sid"] = e.Ended.SessionID
		if e.Ended.Reason != "" {
			p.Extra["reason"] = e.Ended.Reason
		}
		if !e.Ended.At.IsZero() {
			p.Extra["ended_at"] = e.Ended.At.Unix()
		}
	}
	if e.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.FormatInt(max(1, wholeSeconds(e.RetryAfter)), 10))
	}
	if challenge := challenge(e); challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	problem.Write(w, p)
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// challenge is the WWW-Authenticate value of a refusal, or empty. A request
// without a credential gets no error code (RFC 6750 section 3.1).
func challenge(e *Error) string {
	params := []string{`Bearer realm="counterfoil"`}
	add := func(name, value string) { params = append(params, name+"="+quote(value)) }
	code := ""
	switch e.Code {
	case CodeCredentialMissing, CodeProofRequired:
	case CodeCredentialAmbiguous:
		code = "invalid_request"
	case CodeTokenInvalid, CodeTokenExpired, CodeTokenStale, CodeTokenRevoked, CodeTokenTooOld, CodeAudienceMismatch,
		CodeSessionRevoked, CodeSessionExpired, CodeSessionUnknown:
		code = "invalid_token"
	case CodeInsufficientScope, CodeInsufficientAuth:
		code = e.Code
	default:
		return ""
	}
	if code != "" {
		add("error", code)
		add("error_description", details[e.Code])
	}
	if len(e.Scope) > 0 {
		add("scope", strings.Join(e.Scope, " "))
	}
	if e.MaxAge > 0 {
		add("max_age", strconv.FormatInt(wholeSeconds(e.MaxAge), 10))
	}
	if len(e.ACRValues) > 0 {
		add("acr_values", strings.Join(e.ACRValues, " "))
	}
	return strings.Join(params, ", ")
}

// quote makes a quoted-string (RFC 9110 section 5.6.4) that cannot end early.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
