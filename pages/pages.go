// Package pages serves the pages that every application with users needs:
// sign up, sign in, my devices, passkeys, change and reset the password,
// step-up, and why one was signed out. They are rendered on the server, need
// no JavaScript for passwords, and bring their own style.
//
//	mux.Handle("/account/", http.StripPrefix("/account", pages.Handler(auth, users)))
//
// They are the user's side only: who may open which page of the application is
// said by [counterfoil.Authority.Browser] or by package verify. [SignedOut] and
// [StepUp] send users from there to here and back.
package pages

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/guard"
)

// site is what all pages share. It does not change.
type site struct {
	auth  *counterfoil.Authority
	users *directory.Directory
	log   *slog.Logger

	name       string
	help       string // whom to ask
	clientID   string
	deviceAPI  string // where the device API is mounted, or empty
	home       string // where a sign-in leads that came from nowhere
	origins    []string
	light      Theme
	dark       Theme
	signUp     bool
	mail       *mailer // nil: no reset links are sent from here
	keeps      bool    // sign-out leaves the cookies of others
	reasons    map[counterfoil.Reason]string
	https      bool
	sameOrigin *http.CrossOriginProtection
	files      map[string]asset
	version    string // of the files, in their addresses
	routes     map[string]route
}

// route is what one address answers to.
type route struct {
	get, post func(*visit) error
	// account wants a live session.
	account bool
	// named reports that next may name it: it can be opened by a link.
	named bool
}

// Handler serves the pages at /sign-in, /sign-up, /devices, /passkeys,
// /password, /forgot-password, /reset-password, /step-up and /signed-out; "/"
// leads to the devices. Mount it under any prefix that ends with a slash, at
// the host of the application, since the session cookie is bound to it. All
// links are relative, so it need not know the prefix. The directory must be
// of the same authority. A wrong option panics when the handler is built.
func Handler(auth *counterfoil.Authority, users *directory.Directory, opts ...Option) http.Handler {
	if auth == nil || users == nil {
		panic("pages: Handler: an authority and a directory are needed")
	}
	cfg := auth.Config()
	s := &site{
		auth: auth, users: users, log: cfg.Logger, clientID: cfg.ClientID, name: "Your account", home: "devices",
		signUp: true, reasons: make(map[counterfoil.Reason]string),
		https: strings.HasPrefix(cfg.Issuer, "https:"), sameOrigin: http.NewCrossOriginProtection(),
	}
	for _, opt := range opts {
		opt(s)
	}
	if !slices.Contains(append([]string{cfg.ClientID}, cfg.MoreClientIDs...), s.clientID) {
		panic(fmt.Sprintf("pages: WithClientID: %q is not an application of this authority", s.clientID))
	}
	s.makeFiles()
	s.makeRoutes()
	if s.home != "devices" {
		if _, ok := s.target(s.home); !ok {
			panic(fmt.Sprintf("pages: WithNext: %q must be a path that begins with one slash, or lie in an origin of WithRedirectOrigins", s.home))
		}
	}
	return s
}

func (s *site) makeRoutes() {
	s.routes = map[string]route{
		"":                {get: (*visit).showHome},
		"sign-in":         {get: (*visit).showSignIn, post: (*visit).signIn},
		"forgot-password": {get: (*visit).showForgot, post: (*visit).forgot},
		"reset-password":  {get: (*visit).showReset, post: (*visit).reset},
		"signed-out":      {get: (*visit).showSignedOut},
		"sign-out":        {post: (*visit).signOut},
		"devices":         {get: (*visit).showDevices, account: true, named: true},
		"end-device":      {post: (*visit).endDevice, account: true},
		"end-others":      {post: (*visit).endOthers, account: true},
		"password":        {get: (*visit).showPassword, post: (*visit).changePassword, account: true, named: true},
		"step-up":         {get: (*visit).showStepUp, post: (*visit).stepUp, account: true},
		"passkeys":        {get: (*visit).showPasskeys, post: (*visit).addPasskey, account: true, named: true},
		"rename-passkey":  {post: (*visit).renamePasskey, account: true},
		"remove-passkey":  {post: (*visit).removePasskey, account: true},
		"passkey-options": {post: (*visit).passkeyOptions},
	}
	if s.signUp {
		s.routes["sign-up"] = route{get: (*visit).showSignUp, post: (*visit).newUser}
	}
}

// policy is the Content-Security-Policy. Nothing inline, nothing from
// elsewhere, and no markup made from text by scripts. Browsers hold
// form-action against the redirects that follow a form too, so the origins
// that a sign-in may lead to are in it.
func (s *site) policy(formAction string) string {
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action " + formAction +
		"; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
}

func (s *site) secure(h http.Header) {
	guard.Headers(h, s.policy(strings.Join(append([]string{"'self'"}, s.origins...), " ")))
	// With no-referrer, browsers send forms with "Origin: null", which older
	// ones without Sec-Fetch-Site are then refused for. Other sites are told
	// nothing either way.
	h.Set("Referrer-Policy", "same-origin")
	if s.https {
		guard.Transport(h, false)
	}
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.secure(w.Header())
	v := &visit{site: s, w: w, r: r, path: strings.TrimPrefix(r.URL.Path, "/")}
	v.base = strings.Repeat("../", strings.Count(v.path, "/"))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler || v.answered {
			panic(p)
		}
		s.log.ErrorContext(r.Context(), "panic while serving a page", "page", v.page(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		v.failed(errBroken)
	}()
	if err := v.serve(); err != nil {
		v.failed(err)
	}
}

// serve finds the page and lets it answer.
func (v *visit) serve() error {
	if name, ok := strings.CutPrefix(v.path, "assets/"); ok {
		return v.serveFile(name)
	}
	route, ok := v.routes[v.path]
	if !ok {
		return errNoPage
	}
	serve := route.get
	switch v.r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		serve = route.post
		if err := v.readForm(); err != nil {
			return err
		}
	default:
		serve = nil
	}
	if serve == nil {
		return v.wrongMethod(route)
	}
	if route.account {
		if err := v.findSession(); err != nil {
			return err
		}
	}
	return serve(v)
}
