package httpapi

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/counterfoil/counterfoil/internal/guard"
	"github.com/counterfoil/counterfoil/verify"
)

const nothingPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// secure sets what every answer of an API carries.
func (a *api) secure(h http.Header) {
	guard.Headers(h, nothingPolicy)
	if a.https {
		guard.Transport(h, a.subdomains)
	}
}

// share says which pages of other origins may read the answer (CORS). An
// origin is compared, never echoed: what is sent back is our own text.
func (a *api) share(w http.ResponseWriter, r *http.Request, at *resource) {
	h := w.Header()
	switch at.sharing {
	case everybody:
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	case trustedOrigins:
		h.Add("Vary", "Origin")
		origin := a.trusted(r)
		if origin == "" {
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		if r.Method != http.MethodOptions {
			h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate, X-Request-Id")
			return
		}
		// A preflight carries no credential: it is answered before any is looked for.
		h.Set("Access-Control-Allow-Methods", at.allow)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		h.Set("Access-Control-Max-Age", "600")
	}
}

func (a *api) trusted(r *http.Request) string {
	sent := r.Header["Origin"]
	if len(sent) != 1 {
		return ""
	}
	if i := slices.Index(a.origins, sent[0]); i >= 0 {
		return a.origins[i]
	}
	return ""
}

// checkOrigin refuses requests that another site had the browser send.
func (a *api) checkOrigin(r *http.Request) error {
	if len(r.Header["Origin"]) > 1 || len(r.Header["Sec-Fetch-Site"]) > 1 {
		return verify.ErrCrossOrigin
	}
	if err := a.sameSite.Check(r); err != nil {
		return fmt.Errorf("%w: %w", verify.ErrCrossOrigin, err)
	}
	return nil
}
