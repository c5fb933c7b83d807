package pages

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	// maxRepeat bounds a blocked form that is carried through the step-up.
	maxRepeat       = 16 << 10
	maxRepeatFields = 500
	// confirmedAfter is how much later than the start of a session a proof is
	// a step-up, and not the sign-in itself.
	confirmedAfter = 10 * time.Second
)

// stepUpPage asks for a fresh proof.
type stepUpPage struct {
	Proved moment // the last one
	Shown  string // where it goes on afterwards
	// Repeat is the blocked form, encoded as it came; Repeats says that there is one.
	Repeat  string
	Repeats bool
	Lost    bool // what was sent cannot be carried along
	// Subject is whose form it is.
	Subject string
	// The ways in which this user can prove it.
	Password, Passkey bool
}

func (v *visit) showStepUp() error {
	return v.stepUpForm(v.view(""), &stepUpPage{Lost: v.r.URL.Query().Has("lost")})
}

func (v *visit) stepUpForm(data *view, page *stepUpPage) error {
	data.Title = "Confirm that it is you"
	page.Proved = at(v.session.AuthTime, v.auth.Now())
	password, err := v.hasPassword()
	if err != nil {
		return err
	}
	page.Password, page.Passkey = password, v.users.PasskeysOn() && len(v.user.Passkeys) > 0
	switch target, ok := v.target(data.Next); {
	case page.Repeats:
		page.Shown = data.Next
	case ok && strings.HasPrefix(target, "/"):
		page.Shown = target
	}
	page.Shown, _, _ = strings.Cut(page.Shown, "?")
	page.Subject = v.session.Subject
	data.Data = page
	return v.show("step-up", data)
}

func (v *visit) stepUp() error {
	if v.form == nil {
		return v.blocked()
	}
	if v.form.Has("repeat") && v.form.Get("subject") != v.session.Subject {
		return errOtherUser
	}
	grant, err := v.prove()
	switch {
	case errors.Is(err, counterfoil.ErrInvalidCredentials):
		err = &faultError{status: http.StatusUnauthorized, field: "password", text: "The password is not right."}
	case errors.Is(err, counterfoil.ErrNotFound):
		err = errNoPassword
	}
	if err != nil {
		return v.again(err, func(data *view) error {
			page := &stepUpPage{Repeat: v.form.Get("repeat"), Repeats: v.form.Has("repeat")}
			page.Repeats = page.Repeats && v.repeatable(data.Next)
			return v.stepUpForm(data, page)
		})
	}
	v.keep(grant)
	if v.form.Has("repeat") && v.repeatable(v.form.Get("next")) {
		return v.repeat(v.form.Get("next"), v.form.Get("repeat"))
	}
	return v.redirect(v.next())
}

// errOtherUser is for a blocked form whose user has gone: it is not sent as
// another one, who signed in in this browser while the step-up was open.
var errOtherUser = &faultError{
	status: http.StatusConflict, title: "Not done",
	text: "Somebody else has signed in in this browser since. What was sent before that was not done.",
}

// prove checks the credential of the form.
func (v *visit) prove() (*counterfoil.Grant, error) {
	if credential := v.form.Get("credential"); credential != "" {
		grant, err := v.users.StepUpWithPasskey(v.r.Context(), v.token, []byte(credential), v.r)
		if err != nil {
			err = passkeyFault(err)
		}
		return grant, err
	}
	return v.users.StepUp(v.r.Context(), v.token, v.form.Get("password"), v.r)
}

// blocked takes a form that a route of the application refused and sent here
// (see [StepUp]). It comes from this origin, or it would not be here.
func (v *visit) blocked() error {
	data, page := v.view(""), &stepUpPage{}
	data.Next, data.status = v.r.URL.Query().Get("next"), http.StatusUnauthorized
	body, err := io.ReadAll(io.LimitReader(v.r.Body, maxRepeat+1))
	if _, ok := formFields(string(body)); err != nil || !ok || !isForm(v.r.Header) || len(body) > maxRepeat || !v.repeatable(data.Next) {
		page.Lost = true
	} else {
		page.Repeat, page.Repeats = string(body), true
	}
	return v.stepUpForm(data, page)
}

// repeatable reports whether a form may be sent there again: to this origin
// only, and not to the sign-in.
func (s *site) repeatable(next string) bool {
	if own := s.routes[next]; own.post != nil {
		return own.account && next != "step-up"
	}
	return localPath(next)
}

// field is one of a form, in its order.
type field struct{ Name, Value string }

func formFields(body string) ([]field, bool) {
	var list []field
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, false
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, false
		}
		list = append(list, field{name, value})
	}
	return list, len(list) <= maxRepeatFields
}

// repeatPage sends the blocked form again: by itself where there is
// JavaScript, else by a button.
type repeatPage struct {
	Action string
	Fields []field
}

func (v *visit) repeat(action, body string) error {
	fields, ok := formFields(body)
	if !ok || len(body) > maxRepeat {
		return errNoForm
	}
	// What answers the form may lead to another site, a payment service say;
	// browsers would stop that for this page's sake.
	v.w.Header().Set("Content-Security-Policy", v.policy("'self' https:"))
	data := v.view("Confirmed")
	data.Data = &repeatPage{Action: action, Fields: fields}
	return v.show("repeat", data)
}
