package pages

import (
	"context"
	"errors"
	"net/http"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

// replaced is the reason of a session whose browser signed in anew.
const replaced counterfoil.Reason = "replaced"

const actorUser = "user"

// showHome leads to the devices, which lead to the sign-in.
func (v *visit) showHome() error { return v.redirect("devices") }

// showSignIn asks who comes. Whoever is signed in is not sent on unasked: if
// the application thinks otherwise of them, that would go in circles.
func (v *visit) showSignIn() error { return v.signInForm(v.view("")) }

// whom the sign-in page addresses.
type signInPage struct {
	Stays  string // how long a sign-in lasts, in words
	On     bool   // passkeys can be used
	Target string // where who is signed in already may go on to
}

func (v *visit) signInForm(data *view) error {
	data.Title = "Sign in"
	page := &signInPage{Stays: stays(v.auth.Config().Lifetimes), On: v.users.PasskeysOn()}
	switch err := v.findSession(); {
	case err == nil && data.Alert == "":
		data.Email, page.Target = v.user.Email, v.next()
	case errors.Is(err, verify.ErrProofRequired) && data.Alert == "":
		data.Alert = "This browser could not prove that it is the device which signed in. Sign in again."
	case err != nil && !ends(err):
		return err
	}
	data.Data = page
	return v.show("sign-in", data)
}

func (v *visit) signIn() error {
	in, signIn := v.credentials(), v.users.SignIn
	if len(in.Credential) > 0 {
		signIn = v.users.SignInWithPasskey
	}
	grant, err := signIn(v.r.Context(), in)
	if err != nil && len(in.Credential) > 0 {
		err = passkeyFault(err)
	}
	if err != nil {
		return v.again(err, v.signInForm)
	}
	return v.enter(grant)
}

func (v *visit) credentials() directory.SignIn {
	return directory.SignIn{
		Email: v.form.Get("email"), Password: v.form.Get("password"), Credential: []byte(v.form.Get("credential")),
		Request: v.r, ClientID: v.clientID,
	}
}

func (v *visit) showSignUp() error { return v.signUpForm(v.view("")) }

func (v *visit) signUpForm(data *view) error {
	data.Title = "Create an account"
	data.Data = &signInPage{Stays: stays(v.auth.Config().Lifetimes), On: v.users.PasskeysOn()}
	return v.show("sign-up", data)
}

func (v *visit) newUser() error {
	in, signUp := v.credentials(), v.users.SignUp
	if len(in.Credential) > 0 {
		signUp = v.users.SignUpWithPasskey
	}
	grant, _, err := signUp(v.r.Context(), in)
	switch {
	case errors.Is(err, counterfoil.ErrConflict):
		err = errTaken
	case err != nil && len(in.Credential) > 0:
		err = passkeyFault(err)
	}
	if err != nil {
		return v.again(err, v.signUpForm)
	}
	return v.enter(grant)
}

var errTaken = &faultError{
	status: http.StatusConflict, field: "email", text: "This e-mail address has an account already. Sign in with it, or use another one.",
}

// enter gives this browser its session and leads on. What the browser brought
// before is ended, never taken up (SEC-11).
func (v *visit) enter(grant *counterfoil.Grant) error {
	v.endReplaced()
	v.auth.DropBoundCookie(v.w, v.r, v.clientID)
	v.keep(grant)
	return v.redirect(v.next())
}

// keep sets the session cookie, and offers the browser to bind the session to
// a key of the device where we know where it would register that.
func (v *visit) keep(grant *counterfoil.Grant) {
	grant.SetCookie(v.w)
	if v.deviceAPI != "" {
		v.auth.OfferBinding(v.w, grant, v.deviceAPI+"/dbsc/register")
	}
}

// endReplaced ends the session whose cookie the new one overwrites: nobody
// could sign it out any more.
func (v *visit) endReplaced() {
	token, err := v.sessionToken()
	if err != nil {
		return
	}
	ctx := context.WithoutCancel(v.r.Context())
	old, err := v.auth.AuthenticateToEnd(ctx, token)
	if err == nil {
		err = v.auth.RevokeSession(ctx, old.ID, replaced, counterfoil.By(actorUser))
	}
	if ended := (*counterfoil.EndedError)(nil); err != nil && !errors.As(err, &ended) {
		v.log.WarnContext(ctx, "the session before could not be ended; it goes on until it expires", "error", err)
	}
}

// signOut ends the session first and clears the cookies then: if the first
// fails, nobody is told to be safe.
func (v *visit) signOut() error {
	token, err := v.sessionToken()
	if err == nil {
		err = v.endSession(token)
	}
	if err != nil && !ends(err) {
		return err
	}
	v.auth.ClearCookies(v.w, v.clientID)
	if !v.keeps {
		v.w.Header().Set("Clear-Site-Data", `"cookies"`)
	}
	return v.redirect("signed-out")
}

func (v *visit) endSession(token string) error {
	ctx := v.r.Context()
	// Nobody is kept from ending this session, with or without its device's key.
	s, err := v.auth.AuthenticateToEnd(ctx, token)
	sid := s.ID
	if ended := (*counterfoil.EndedError)(nil); errors.As(err, &ended) {
		if !errors.Is(err, counterfoil.ErrSessionRevoked) || ended.SessionID == "" {
			return nil
		}
		sid = ended.SessionID // by another process: the verifiers of this one may not know yet
	} else if err != nil {
		return err
	}
	return v.auth.RevokeSession(ctx, sid, counterfoil.SignedOut, counterfoil.By(actorUser))
}

// signedOutPage is the torn ticket.
type signedOutPage struct {
	Stamp  string // on the stub
	SID    string
	Reason string
	Ended  moment
	Ask    bool // somebody else did it: say whom to ask
}

// showSignedOut says why. The reason is that of the session which the cookie
// names, as its row tells; no link can make the page say anything.
func (v *visit) showSignedOut() error {
	err := v.findSession()
	data := v.view("Signed out")
	var ended *counterfoil.EndedError
	switch {
	case err == nil:
		return v.redirect(withNext("sign-in", v.asked()))
	case errors.As(err, &ended):
		data.Data = v.reasonOf(ended)
	case errors.Is(err, verify.ErrCredentialMissing):
		data.Data = &signedOutPage{Stamp: "signed out", Reason: "This browser is not signed in any more."}
	case errors.Is(err, verify.ErrProofRequired):
		return v.redirect(withNext("sign-in", v.asked()))
	default:
		return err
	}
	return v.show("signed-out", data)
}
