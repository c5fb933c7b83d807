package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// inspection is what token inspect found out.
type inspection struct {
	Header    map[string]any `json:"header"`
	Claims    map[string]any `json:"claims"`
	Signature string         `json:"signature"` // good, bad, not_checked
	Checked   string         `json:"checked_with,omitempty"`
	Problem   string         `json:"problem,omitempty"`
	Routes    []verdict      `json:"routes"`
}

// verdict is whether one kind of route would take the token. Taken is nil
// when that cannot be said.
type verdict struct {
	Rule  string `json:"rule"`
	Taken *bool  `json:"taken"`
	Code  string `json:"code,omitempty"`
	Why   string `json:"why"`
}

const (
	signatureGood       = "good"
	signatureBad        = "bad"
	signatureNotChecked = "not_checked"

	inspectTokenAge = 30 * time.Second
	inspectAuthAge  = 10 * time.Minute
)

// route is one kind of route that the token is tried on.
type route struct {
	name  string
	rules []verify.Rule
	live  bool
	// guess says what can be said without a checked signature.
	guess func(t *token, now time.Time) string
}

func routes() []route {
	return []route{
		{name: "default", guess: func(*token, time.Time) string { return "" }},
		{name: "MaxTokenAge(30s)", rules: []verify.Rule{verify.MaxTokenAge(inspectTokenAge), verify.RefreshWhenOld()},
			guess: func(t *token, now time.Time) string {
				return tooLongAgo(t.time("iat"), now, inspectTokenAge, "it was issued")
			}},
		{name: "Live()", rules: []verify.Rule{verify.Live()}, live: true, guess: func(*token, time.Time) string { return "" }},
		{name: "MaxAuthAge(10m)", rules: []verify.Rule{verify.MaxAuthAge(inspectAuthAge)},
			guess: func(t *token, now time.Time) string {
				return tooLongAgo(t.time("auth_time"), now, inspectAuthAge, "the user last proved who they are")
			}},
	}
}

func tooLongAgo(at, now time.Time, limit time.Duration, what string) string {
	if at.IsZero() || now.Sub(at) > limit {
		return fmt.Sprintf("%s %s", what, (&printer{now: now}).ago(at))
	}
	return ""
}

// judge tries the token on each kind of route. A nil checker checks nothing.
func judge(ctx context.Context, t *token, checker *tokenChecker, now time.Time) *inspection {
	report := &inspection{Header: t.header, Claims: t.claims, Signature: signatureNotChecked}
	if checker == nil {
		for _, r := range routes() {
			report.Routes = append(report.Routes, unchecked(t, r, now))
		}
		return report
	}
	report.Checked = checker.with
	var unavailable error // without keys, no route need be tried
	for i, r := range routes() {
		if unavailable != nil {
			report.Routes = append(report.Routes, decided(t, r, unavailable, now))
			continue
		}
		if r.live && !checker.asks {
			report.Routes = append(report.Routes, verdict{Rule: r.name,
				Why: "cannot be asked: set COUNTERFOIL_API_KEY to a key with scope verify"})
			continue
		}
		_, err := checker.check(ctx, t.text, r.rules...)
		if i == 0 {
			report.Signature, report.Problem = signatureOf(err)
			if errors.Is(err, verify.ErrUnavailable) {
				unavailable = err
			}
		}
		report.Routes = append(report.Routes, decided(t, r, err, now))
	}
	return report
}

// signatureOf tells from the answer of the default route whether the
// signature was good: only then are answers precise.
func signatureOf(err error) (signature, problem string) {
	var refused *verify.Error
	if !errors.As(err, &refused) {
		return signatureGood, ""
	}
	switch refused.Code {
	case verify.CodeTokenInvalid:
		return signatureBad, causeOf(refused)
	case verify.CodeUnavailable:
		return signatureNotChecked, causeOf(refused)
	}
	return signatureGood, ""
}

func causeOf(e *verify.Error) string {
	if e.Cause != nil {
		return e.Cause.Error()
	}
	return e.Code
}

func decided(t *token, r route, err error, now time.Time) verdict {
	v := verdict{Rule: r.name, Taken: new(err == nil)}
	var refused *verify.Error
	switch {
	case err == nil && r.live:
		v.Why = "its session goes on"
	case err == nil:
	case errors.As(err, &refused):
		v.Code = refused.Code
		v.Why = refusal(t, r, refused, now)
		if refused.Code == verify.CodeUnavailable {
			v.Taken = nil
		}
	default:
		v.Why = err.Error()
	}
	return v
}

// refusal says in words why a route refuses.
func refusal(t *token, r route, e *verify.Error, now time.Time) string {
	p := &printer{now: now}
	switch e.Code {
	case verify.CodeTokenExpired:
		return "it expired " + p.ago(t.time("exp"))
	case verify.CodeTokenStale:
		return "the user's rights changed after it was issued; a refresh brings them"
	case verify.CodeTokenRevoked:
		return "its session has ended"
	case verify.CodeAudienceMismatch:
		return fmt.Sprintf("it is for audience %v", t.claims["aud"])
	case verify.CodeTokenTooOld, verify.CodeInsufficientAuth:
		if why := r.guess(t, now); why != "" {
			return why
		}
	}
	return causeOf(e)
}

// unchecked says what the text alone tells.
func unchecked(t *token, r route, now time.Time) verdict {
	no := func(code, why string) verdict { return verdict{r.name, new(false), code, why} }
	exp := t.time("exp")
	switch {
	case t.fault != nil:
		return no(verify.CodeTokenInvalid, t.fault.Error())
	case t.header["typ"] != verify.TokenType:
		return no(verify.CodeTokenInvalid, "its typ is not "+verify.TokenType)
	case exp.IsZero() || !now.Before(exp):
		return no(verify.CodeTokenExpired, "it expired "+(&printer{now: now}).ago(exp))
	}
	if why := r.guess(t, now); why != "" {
		return verdict{Rule: r.name, Taken: new(false), Why: why}
	}
	if r.live {
		return verdict{Rule: r.name, Why: "nobody was asked"}
	}
	return verdict{Rule: r.name, Why: "only if its signature is good"}
}
