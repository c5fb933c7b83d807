package pages

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// SignedOut is for [counterfoil.Config.SignedOut]: who opens a page of the
// application without a live session is led to the sign-in under prefix (such
// as "/account") and back, and is told first why a session ended. Requests
// that scripts send get the problem answer as before.
func SignedOut(prefix string) func(w http.ResponseWriter, r *http.Request, err error) {
	prefix = mustPrefix("SignedOut", prefix)
	return func(w http.ResponseWriter, r *http.Request, err error) {
		page := "/sign-in"
		var ended *counterfoil.EndedError
		switch {
		case !wantsPage(r):
			verify.WriteError(w, r, err)
			return
		case errors.As(err, &ended):
			page = "/signed-out"
		}
		next := requested(r)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			next = camefrom(r) // a form cannot be opened by a link; the page with it can
		}
		lead(w, http.StatusSeeOther, withNext(prefix+page, next))
	}
}

// StepUp is for [counterfoil.Config.StepUp]: who has to prove again who they
// are does so under prefix, and the blocked request is repeated: a GET by a
// redirect; a form of up to 16 KiB is carried along and sent again. Files are
// not carried: the user is told to send them again. Requests that scripts send
// get the problem answer as before.
func StepUp(prefix string) func(w http.ResponseWriter, r *http.Request, err error) {
	prefix = mustPrefix("StepUp", prefix)
	return func(w http.ResponseWriter, r *http.Request, err error) {
		switch {
		case !wantsPage(r):
			verify.WriteError(w, r, err)
		case r.Method == http.MethodGet, r.Method == http.MethodHead:
			lead(w, http.StatusSeeOther, withNext(prefix+"/step-up", requested(r)))
		case requested(r) != "" && isForm(r.Header) && 0 <= r.ContentLength && r.ContentLength <= maxRepeat:
			// 307 has the browser send the same form to the step-up.
			lead(w, http.StatusTemporaryRedirect, withNext(prefix+"/step-up", requested(r)))
		default:
			lead(w, http.StatusSeeOther, prefix+"/step-up?"+url.Values{"next": {camefrom(r)}, "lost": {""}}.Encode())
		}
	}
}

func lead(w http.ResponseWriter, status int, target string) {
	h := w.Header()
	h.Set("Cache-Control", "private, no-store")
	h.Set("Location", target)
	w.WriteHeader(status)
}

func mustPrefix(name, prefix string) string {
	prefix = strings.TrimRight(prefix, "/")
	if prefix != "" && !localPath(prefix) || strings.ContainsAny(prefix, "?#%") {
		panic(fmt.Sprintf("pages: %s: %q must be where the pages are mounted, such as /account", name, prefix))
	}
	return prefix
}

// wantsPage tells a person at a browser from a script: who navigates wants a
// page. Browsers that do not say so yet name HTML in Accept, and only they.
func wantsPage(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		return false // no link and no form sends those
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// requested is what was asked for, as the browser wrote it, so that a prefix
// which was stripped on the way is in it; empty when it cannot be a target.
func requested(r *http.Request) string {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") {
		target = r.URL.RequestURI()
	}
	if !localPath(target) {
		return ""
	}
	return target
}

// camefrom is the page of this host that sent the request, or empty.
func camefrom(r *http.Request) string {
	u, err := url.Parse(r.Referer())
	if err != nil || u.Host != r.Host || !localPath(u.RequestURI()) {
		return ""
	}
	return u.RequestURI()
}
