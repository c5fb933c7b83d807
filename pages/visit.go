package pages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	// maxForm bounds a form in bytes. A blocked form of maxRepeat bytes,
	// encoded once more inside ours, fits.
	maxForm   = 64 << 10
	mediaForm = "application/x-www-form-urlencoded"
)

// visit is one request for a page.
type visit struct {
	*site
	w    http.ResponseWriter
	r    *http.Request
	path string     // behind the prefix, without the slash
	base string     // leads from here to the prefix
	form url.Values // nil for a GET

	token   string // of the session, when there is one
	session counterfoil.Session
	user    directory.User

	answered bool
}

// page is the path for logs: only names that we gave ourselves.
func (v *visit) page() string {
	if _, ok := v.routes[v.path]; ok {
		return v.path
	}
	return "(none)"
}

// readForm refuses forms that another site had the browser send, and reads
// the rest. What step-up is to repeat is not ours to read here.
func (v *visit) readForm() error {
	if len(v.r.Header["Origin"]) > 1 || len(v.r.Header["Sec-Fetch-Site"]) > 1 || v.sameOrigin.Check(v.r) != nil {
		return errOtherSite
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
	if v.path == "step-up" && v.r.URL.Query().Has("next") {
		return nil
	}
	if !isForm(v.r.Header) {
		return errNoForm
	}
	body, err := io.ReadAll(v.r.Body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return errTooLarge
	}
	if err != nil {
		return errNoForm
	}
	if v.form, err = url.ParseQuery(string(body)); err != nil {
		return errNoForm
	}
	for _, values := range v.form {
		if len(values) > 1 {
			return errNoForm
		}
	}
	return nil
}

func isForm(h http.Header) bool {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset := params["charset"]
	return err == nil && media == mediaForm && (charset == "" || strings.EqualFold(charset, "utf-8")) && h.Get("Content-Encoding") == ""
}

// sessionToken is what the session cookie holds. Nothing else is looked at:
// these are pages for browsers.
func (v *visit) sessionToken() (string, error) {
	return v.auth.SessionTokenFrom(&http.Request{Header: http.Header{"Cookie": v.r.Header["Cookie"]}}, v.clientID)
}

// activeWithin is how old the last use may be before a page counts as use.
const activeWithin = time.Minute

// findSession is the gate of the account's pages: the session as its row
// stands now, and its user.
func (v *visit) findSession() error {
	token, err := v.sessionToken()
	if err != nil {
		return err
	}
	ctx := v.r.Context()
	s, err := v.auth.Authenticate(ctx, token)
	if errors.Is(err, verify.ErrProofRequired) && v.r.Header.Get("Secure-Session-Skipped") != "" {
		// The browser has the key of the device, and put the proof off.
		return fmt.Errorf("%w: the browser put off the proof of the device", verify.ErrUnavailable)
	}
	if err != nil {
		return err
	}
	if s.ClientID != v.clientID {
		return &counterfoil.EndedError{Err: counterfoil.ErrSessionUnknown}
	}
	v.user, err = v.users.Get(ctx, s.Subject)
	if err != nil && !errors.Is(err, counterfoil.ErrNotFound) {
		return err
	}
	if v.auth.Now().Sub(s.LastActiveAt) > activeWithin {
		// A page that somebody opens is use, which slides the idle expiry.
		g, err := v.auth.Refresh(ctx, token, counterfoil.RefreshRequest{ClientID: v.clientID})
		if err == nil {
			s.LastActiveAt = g.Session.LastActiveAt
		} else {
			v.log.WarnContext(ctx, "the use of a session was not noted", "error", err)
		}
	}
	v.token, v.session = token, s
	return nil
}

// redirect leads on with a GET. Names of our pages are relative to the address
// that the browser sees.
func (v *visit) redirect(target string) error { return v.lead(http.StatusSeeOther, target) }

func (v *visit) lead(status int, target string) error {
	v.answered = true
	v.w.Header().Set("Location", target)
	v.w.WriteHeader(status)
	return nil
}

// withNext is one of our pages, told where to lead on to.
func withNext(page, next string) string {
	if next == "" {
		return page
	}
	return page + "?" + url.Values{"next": {next}}.Encode()
}

// view is what a template is given.
type view struct {
	Name, Help, Base, Version string
	Themed, SignUp, CanReset  bool
	Path                      string // of the page
	Title                     string
	Email                     string // of the user who is signed in
	Alert                     string // what went wrong
	Note                      string // what went well
	Field                     string // the field that Alert is about
	Typed                     string // the e-mail address that was typed
	Next                      string
	MinLength                 int // of a new password
	Data                      any

	status int // default 200
}

func (v *visit) view(title string) *view {
	return &view{
		Name: v.name, Help: v.help, Base: v.base, Version: v.version, Themed: v.light != (Theme{}) || v.dark != (Theme{}),
		SignUp: v.signUp, CanReset: v.mail != nil, Path: v.path, Title: title, Email: v.user.Email, Next: v.asked(), MinLength: v.users.MinPasswordLength(),
	}
}

// show answers with a page. It is made whole before anything is sent.
func (v *visit) show(name string, data *view) error {
	if data.status == 0 {
		data.status = http.StatusOK
	}
	if data.status == http.StatusOK && data.Note == "" {
		data.Note = v.takeNote()
	}
	var page bytes.Buffer
	if err := templates[name].ExecuteTemplate(&page, "layout", data); err != nil {
		return err
	}
	v.answered = true
	h := v.w.Header()
	h.Set("Cache-Control", "private, no-store")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(page.Len()))
	v.w.WriteHeader(data.status)
	if v.r.Method != http.MethodHead {
		// A write fails when the client has gone; there is nobody left to tell.
		_, _ = v.w.Write(page.Bytes())
	}
	return nil
}

// noteCookie carries one of the notes below over a redirect. Not a parameter:
// nobody can make a link that has a page say what did not happen.
const noteCookie = "__Host-counterfoil-note"

var notes = map[string]string{
	"device_ended":    "The device was signed out.",
	"others_ended":    "All other devices were signed out.",
	"password_new":    "The password was changed. All other devices were signed out.",
	"password_reset":  "The new password is set, and all devices were signed out. Sign in with it.",
	"passkey_added":   "The passkey was added. You can sign in with it from now on.",
	"passkey_renamed": "The passkey has its new name.",
	"passkey_removed": "The passkey was removed. Nobody can sign in with it any more.",
	"already_ended":   "This device had been signed out already.",
}

func (v *visit) note(code string) {
	http.SetCookie(v.w, &http.Cookie{
		Name: noteCookie, Value: code, Path: "/", MaxAge: 60, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func (v *visit) takeNote() string {
	cookies := v.r.CookiesNamed(noteCookie)
	if len(cookies) == 0 {
		return ""
	}
	http.SetCookie(v.w, &http.Cookie{
		Name: noteCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	return notes[cookies[0].Value]
}

// failed answers for a page that could not do its work.
func (v *visit) failed(err error) {
	var (
		ended *counterfoil.EndedError
		fault *faultError
	)
	switch {
	case errors.As(err, &ended):
		_ = v.redirect(withNext(v.base+"signed-out", v.returns()))
		return
	case errors.Is(err, verify.ErrCredentialMissing), errors.Is(err, verify.ErrProofRequired):
		_ = v.redirect(withNext(v.base+"sign-in", v.returns()))
		return
	case errors.Is(err, verify.ErrInsufficientUserAuthentication):
		v.proveAgain()
		return
	case errors.As(err, &fault):
	default:
		fault = v.inWords(err)
	}
	data := v.view(fault.title)
	data.Email, data.Data, data.status = "", fault, fault.status
	if shown := v.show("fault", data); shown != nil {
		v.log.ErrorContext(v.r.Context(), "a page could not be shown", "page", v.page(), "error", shown)
		http.Error(v.w, fault.text, http.StatusInternalServerError)
	}
}

// proveAgain is [StepUp] for our own pages.
func (v *visit) proveAgain() {
	status := http.StatusTemporaryRedirect // the same form goes to the step-up
	if v.form == nil {
		status = http.StatusSeeOther
	}
	_ = v.lead(status, withNext(v.base+"step-up", v.path))
}

// returns is where to come back to after a sign-in: the page that was asked
// for, when a link can open it.
func (v *visit) returns() string {
	switch {
	case v.routes[v.path].named:
		return v.path
	case v.path == "step-up" && v.r.Method == http.MethodPost && v.form == nil:
		return camefrom(v.r) // the blocked form is gone; the page that it was on is not
	case v.form.Has("repeat"):
		return ""
	}
	return v.asked()
}

func (v *visit) wrongMethod(route route) error {
	allow := "GET, HEAD, POST"
	switch {
	case route.post == nil:
		allow = "GET, HEAD"
	case route.get == nil:
		allow = "POST"
	}
	v.w.Header().Set("Allow", allow)
	return errMethod
}
