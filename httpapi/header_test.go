package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

// checkHeaders is called for every answer of the tests (SEC-07, SEC-10, SEC-102, SEC-103).
func checkHeaders(s *site, r *http.Request, w *answer) {
	s.Helper()
	h := w.Header()
	for name, want := range map[string]string{
		"X-Content-Type-Options":     "nosniff",
		"Referrer-Policy":            "no-referrer",
		"X-Frame-Options":            "DENY",
		"Strict-Transport-Security":  "max-age=31536000; includeSubDomains",
		"Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := h.Get(name); got != want {
			s.Errorf("SEC-103: %s %s: %s is %q", r.Method, r.URL.Path, name, got)
		}
	}
	if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		s.Errorf("SEC-102: %s %s: Content-Security-Policy is %q", r.Method, r.URL.Path, csp)
	}
	if h.Get("Permissions-Policy") == "" || h.Get("X-Request-Id") == "" || h.Get("Cross-Origin-Resource-Policy") == "" {
		s.Errorf("SEC-103: %s %s: a header is missing: %v", r.Method, r.URL.Path, h)
	}
	_, access := w.json["access_token"]
	_, session := w.json["session_token"]
	cache := h.Get("Cache-Control")
	switch {
	case (access || session || h.Get("Set-Cookie") != "") && cache != "private, no-store":
		s.Errorf("SEC-10: %s %s carries a credential with Cache-Control %q", r.Method, r.URL.Path, cache)
	case !strings.Contains(cache, "no-store") && !strings.HasPrefix(cache, "public, max-age=300"):
		s.Errorf("SEC-10: %s %s has Cache-Control %q", r.Method, r.URL.Path, cache)
	}
	for _, c := range w.Result().Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode && c.SameSite != http.SameSiteStrictMode || len(c.Raw) > 4096 {
			s.Errorf("SEC-07: %s %s sets %s", r.Method, r.URL.Path, c.Raw)
		}
	}
	if w.Code == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		s.Errorf("%s %s: 503 without Retry-After", r.Method, r.URL.Path)
	}
	if w.Code == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		s.Errorf("%s %s: 401 without WWW-Authenticate", r.Method, r.URL.Path)
	}
}

func TestHeadersOfEveryRoute(t *testing.T) {
	s := newSite(t)
	for path, methods := range s.doc.Paths {
		path = parameter.ReplaceAllString(path, "0123456789abcdefghijklmn")
		for method := range methods {
			// Whatever the answer is, do checks its headers.
			s.do(ask{method: strings.ToUpper(method) + " " + path})
			s.do(ask{method: strings.ToUpper(method) + " " + path, bearer: s.key})
		}
		s.do(ask{method: "OPTIONS " + path, any: true})
		s.do(ask{method: "TRACE " + path, any: true})
	}
	s.do(ask{method: "GET /nowhere", any: true})
}

// Strict transport of all subdomains is for who owns the host.
func TestTransportSecurityWhenMounted(t *testing.T) {
	s := newSite(t)
	plain := newSite(t, func(c *counterfoil.Config) { c.Issuer = "http://localhost:8700" })
	for _, tc := range []struct {
		h         http.Handler
		set, want string
	}{
		{httpapi.Device(s.auth), "", "max-age=31536000"},
		{httpapi.Device(s.auth), "max-age=63072000; preload", "max-age=63072000; preload"},
		{plain.handler, "", ""},
		{s.handler, "", "max-age=31536000; includeSubDomains"},
	} {
		w := newRecorder()
		if tc.set != "" {
			w.Header().Set("Strict-Transport-Security", tc.set)
		}
		tc.h.ServeHTTP(w, newRequest("GET", "/session"))
		if got := w.Header().Get("Strict-Transport-Security"); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
