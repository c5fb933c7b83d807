package pages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

func (v *visit) showPassword() error { return v.passwordForm(v.view("")) }

func (v *visit) passwordForm(data *view) error {
	has, err := v.hasPassword()
	if err != nil {
		return err
	}
	data.Title, data.Data = "Change the password", &passwordPage{Has: has}
	if !has {
		data.Title = "Your password"
	}
	return v.show("password", data)
}

// passwordPage is for users with a password, and says so to the others.
type passwordPage struct{ Has bool }

func (v *visit) changePassword() error {
	grant, err := v.users.ChangePassword(v.r.Context(), v.token, v.form.Get("current"), v.form.Get("new"), v.r)
	switch {
	case errors.Is(err, counterfoil.ErrInvalidCredentials):
		err = &faultError{status: http.StatusUnauthorized, field: "current", text: "The present password is not right."}
	case errors.Is(err, counterfoil.ErrNotFound):
		err = errNoPassword
	}
	if err != nil {
		return v.again(err, v.passwordForm)
	}
	v.keep(grant)
	v.note("password_new")
	return v.redirect("devices")
}

var errNoPassword = &faultError{status: http.StatusNotFound, text: "This account has no password here."}

func (v *visit) showReset() error { return v.resetForm(v.view("")) }

func (v *visit) resetForm(data *view) error {
	data.Title = "Set a new password"
	return v.show("reset-password", data)
}

func (v *visit) reset() error {
	err := v.users.ResetPassword(v.r.Context(), resetToken(v.form.Get("token")), v.form.Get("new"), v.r)
	if field := (*counterfoil.FieldError)(nil); errors.As(err, &field) && field.Field == "token" {
		err = &faultError{status: http.StatusBadRequest, field: "token", text: "This link is not good any more: it was used, replaced by a newer one, has expired, or was copied incompletely."}
	}
	if err != nil {
		return v.again(err, v.resetForm)
	}
	v.note("password_reset")
	return v.redirect("sign-in#") // or the browser would keep the code behind the #
}

// resetToken is the code that somebody pasted, alone or with the link around it.
func resetToken(text string) string {
	if i := strings.LastIndexByte(text, '#'); i >= 0 {
		text = text[i+1:]
	}
	return strings.TrimSpace(text)
}

// SendReset sends a user the link that lets them set a new password. The
// link is a secret: it belongs into the mail alone, not into logs. ctx ends
// after 30 s. An error is logged; the user is not told, since nobody is told
// whether there is a user.
type SendReset func(ctx context.Context, user directory.User, link string) error

// WithSendReset adds the page for those who forgot the password. base is
// where the pages are mounted, such as "https://app.example/account": links in
// mails are never made from what a request says. Whatever address is typed,
// the answer is the same and takes as long; send is called afterwards, for
// users who exist and are not disabled.
//
// The link carries its token behind a #, where no server, log or Referer sees
// it. Without WithSendReset the page says whom to ask ([WithHelp]).
func WithSendReset(base string, send SendReset) Option {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(base, "#") ||
		u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" && u.Hostname() != "::1") {
		panic(fmt.Sprintf("pages: WithSendReset: %q must be an https URL without query and fragment (plain http on loopback only)", base))
	}
	if send == nil {
		panic("pages: WithSendReset: a function that sends is needed")
	}
	return func(s *site) {
		s.mail = &mailer{base: strings.TrimRight(base, "/"), send: send, slots: make(chan struct{}, maxMails)}
	}
}

const (
	maxMails    = 32 // being sent at once; more have to ask again
	mailTimeout = 30 * time.Second
)

type mailer struct {
	base  string
	send  SendReset
	slots chan struct{}
}

// forgotPage is the page after the address was given.
type forgotPage struct{ Sent bool }

func (v *visit) showForgot() error { return v.forgotForm(v.view("")) }

func (v *visit) forgotForm(data *view) error {
	data.Title = "Forgot the password?"
	data.Data = &forgotPage{}
	return v.show("forgot-password", data)
}

// forgot answers before anybody looks whether there is such a user (SEC-91).
func (v *visit) forgot() error {
	if v.mail == nil {
		return errNoPage
	}
	email := v.form.Get("email")
	if err := v.users.AllowReset(v.r.Context(), email, v.r); err != nil {
		return v.again(err, v.forgotForm)
	}
	select {
	case v.mail.slots <- struct{}{}:
		go func() {
			defer func() { <-v.mail.slots }()
			v.sendReset(context.WithoutCancel(v.r.Context()), email)
		}()
	default:
		return v.again(&faultError{status: http.StatusServiceUnavailable, text: "Too many mails are on their way right now. Try again in a moment."}, v.forgotForm)
	}
	data := v.view("Look into your mail")
	data.Typed, data.Data = strings.TrimSpace(email), &forgotPage{Sent: true}
	return v.show("forgot-password", data)
}

func (s *site) sendReset(ctx context.Context, email string) {
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "panic while sending a reset link", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	u, err := s.users.ByEmail(ctx, email)
	if errors.Is(err, counterfoil.ErrNotFound) || err == nil && u.Rights.Disabled {
		return
	}
	if err == nil {
		err = s.sendTo(ctx, u)
	}
	if err != nil {
		s.log.ErrorContext(ctx, "a reset link could not be sent", "user", u.ID, "error", err)
	}
}

func (s *site) sendTo(ctx context.Context, u directory.User) error {
	token, _, err := s.users.NewPasswordReset(ctx, u.ID)
	if err != nil {
		return err
	}
	return s.mail.send(ctx, u, s.mail.base+"/reset-password#"+token.Reveal())
}
