package verify

import (
	"errors"
	"net/http"
	"strings"
)

// AccessTokenCookie is the cookie that [Cookie] reads.
const AccessTokenCookie = "__Host-counterfoil-at"

// Require lets requests through that carry a valid access token and keep the
// rules; the handler finds the claims with [FromContext]. All others are
// answered by [WriteError].
//
// The token is taken from the Authorization header, which must be there once,
// and from nowhere else unless [Cookie] says so. Require treats all methods
// alike: a CORS preflight carries no token, so whatever answers OPTIONS stands
// outside of it.
//
// A rule that the verifier cannot keep panics here, when the route is built.
func (v *Verifier) Require(rules ...Rule) func(http.Handler) http.Handler {
	return v.middleware(v.mustCompile(rules), false)
}

// Optional is Require for routes that serve strangers too: a request without a
// credential passes, and [FromContext] finds nothing. A bad credential is
// refused all the same.
func (v *Verifier) Optional(rules ...Rule) func(http.Handler) http.Handler {
	return v.middleware(v.mustCompile(rules), true)
}

// Handler is Require for handlers that take the claims as an argument. It is
// the shortest way from a header to claims: for a token that was verified
// before, nothing is allocated, where the context of Require takes two
// allocations. c is never nil.
//
//	mux.Handle("GET /orders", v.Handler(func(w http.ResponseWriter, r *http.Request, c *verify.Claims) {
//		…
//	}, verify.Scope("orders:read")))
func (v *Verifier) Handler(f func(w http.ResponseWriter, r *http.Request, c *Claims), rules ...Rule) http.Handler {
	return &typedHandler{v, v.mustCompile(rules), f}
}

type typedHandler struct {
	verifier *Verifier
	rules    *ruleset
	serve    func(http.ResponseWriter, *http.Request, *Claims)
}

func (h *typedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, err := h.verifier.credential(r, h.rules)
	if err == nil {
		var c *Claims
		if c, err = h.verifier.check(r.Context(), token, h.rules); err == nil {
			h.serve(w, r, c)
			return
		}
	}
	WriteError(w, r, err)
}

func (v *Verifier) middleware(rules *ruleset, optional bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, err := v.credential(r, rules)
			if optional && errors.Is(err, ErrCredentialMissing) {
				next.ServeHTTP(w, r)
				return
			}
			var c *Claims
			if err == nil {
				c, err = v.check(r.Context(), token, rules)
			}
			if err != nil {
				WriteError(w, r, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), c)))
		})
	}
}

// credential finds the token of a request. Two are never guessed between.
func (v *Verifier) credential(r *http.Request, rules *ruleset) (string, error) {
	switch values := r.Header["Authorization"]; len(values) {
	case 0:
	case 1:
		if token, ok := bearer(values[0]); ok {
			return token, nil
		}
		// Another scheme is somebody else's credential, not a token.
	default:
		return "", ErrCredentialAmbiguous
	}
	if !rules.cookie {
		return "", ErrCredentialMissing
	}
	token, n := cookie(r.Header["Cookie"], AccessTokenCookie)
	switch {
	case n == 0:
		return "", ErrCredentialMissing
	case n > 1:
		return "", ErrCredentialAmbiguous
	}
	if err := v.origins.Check(r); err != nil {
		return "", because(ErrCrossOrigin, err)
	}
	return token, nil
}

// bearer reads "Bearer <token>" (RFC 6750 section 2.1, RFC 9110 section 11.4):
// the scheme in any case, one space or more. A scheme without a token is an
// empty token, which no check takes.
func bearer(value string) (token string, ok bool) {
	const scheme, usual = "bearer", "Bearer "
	if len(value) > len(usual) && value[:len(usual)] == usual && value[len(usual)] != ' ' {
		return value[len(usual):], true
	}
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	rest := value[len(scheme):]
	if rest != "" && rest[0] != ' ' {
		return "", false
	}
	return strings.TrimLeft(rest, " "), true
}

// cookie returns the last value of the cookies of that name and how many there
// are (RFC 6265 section 4.2.1).
func cookie(headers []string, name string) (value string, n int) {
	for _, h := range headers {
		for {
			for h != "" && (h[0] == ' ' || h[0] == '\t') {
				h = h[1:]
			}
			end := strings.IndexByte(h, ';')
			pair := h
			if end >= 0 {
				pair = h[:end]
			}
			// Most are other cookies, passed over by what stands after the name.
			if len(pair) > len(name) && pair[len(name)] == '=' && pair[:len(name)] == name {
				value = pair[len(name)+1:]
				for value != "" && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
					value = value[:len(value)-1]
				}
				n++
			}
			if end < 0 {
				break
			}
			h = h[end+1:]
		}
	}
	return value, n
}
