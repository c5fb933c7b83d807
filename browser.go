package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// Browser protects pages of this application: the session cookie comes in,
// a fresh access token stands behind it, and no JavaScript is needed. The
// access token travels in a cookie of its own and is verified locally; when
// it is missing, expired, stale or older than a MaxTokenAge it is minted
// anew, once for all requests that come at the same time, and the page is
// served. An `Authorization: Bearer` access token is taken first.
//
// Requests of unsafe methods from another origin are refused. Where there is
// no live session, [Config.SignedOut] answers, and where the user has to prove
// again who they are, [Config.StepUp], both by default with 401. Once they
// have done so the next request is let through. A rule that cannot be kept
// panics when the route is built.
func (a *Authority) Browser(rules ...verify.Rule) func(http.Handler) http.Handler {
	v := a.verifiers[a.cfg.Audiences[0]]
	check := v.Checker(append(rules[:len(rules):len(rules)], verify.RefreshWhenOld())...)
	bearer := v.Require(rules...)
	origins := http.NewCrossOriginProtection()
	return func(next http.Handler) http.Handler {
		withBearer := a.counters.browserRefusals.counted(bearer, next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := origins.Check(r); err != nil {
				err = fmt.Errorf("%w: %w", verify.ErrCrossOrigin, err)
				a.counters.browserRefusals.countError(err)
				verify.WriteError(w, r, err)
				return
			}
			if hasBearer(r) {
				withBearer.ServeHTTP(w, r)
				return
			}
			access, err := a.browse(r, RefreshRequest{}, check)
			if err != nil {
				a.refuse(w, r, err)
				return
			}
			if access.Cookie != nil {
				http.SetCookie(w, access.Cookie)
				w = &uncached{ResponseWriter: w}
			}
			next.ServeHTTP(w, r.WithContext(verify.NewContext(r.Context(), access.Claims)))
		})
	}
}

func hasBearer(r *http.Request) bool {
	for _, value := range r.Header["Authorization"] {
		if len(value) > 7 && strings.EqualFold(value[:7], "Bearer ") {
			return true
		}
	}
	return false
}

// BrowserAccess is the access token that stands behind a browser's cookies.
type BrowserAccess struct {
	AccessToken string
	Claims      *verify.Claims
	// Cookie, when not nil, keeps an access token that was just minted in the
	// browser, so that the next request needs no refresh. An answer that sets
	// it must not be kept by any cache.
	Cookie *http.Cookie
}

// BrowserAccess does for one request what [Authority.Browser] does for pages:
// session cookie in, a good access token out. It is for gateways, which hand
// the token on. Audience and ClientID of want default to the first configured
// ones; for others nothing is kept in the browser, and each call is a refresh.
// Where the request came from is not looked at: refuse unsafe methods from
// other origins before. Errors as of [Authority.Refresh] and of the verifier.
func (a *Authority) BrowserAccess(r *http.Request, want RefreshRequest, rules ...verify.Rule) (*BrowserAccess, error) {
	v, err := a.Verifier(want.Audience)
	if err != nil {
		return nil, err
	}
	rules = append(rules[:len(rules):len(rules)], verify.RefreshWhenOld())
	return a.browse(r, want, func(ctx context.Context, token string) (*verify.Claims, error) {
		return v.Check(ctx, token, rules...)
	})
}

// browse finds the access token behind a page's cookies, and the cookie to set
// when one was minted.
func (a *Authority) browse(r *http.Request, want RefreshRequest, check func(context.Context, string) (*verify.Claims, error)) (*BrowserAccess, error) {
	if want.ClientID == "" {
		want.ClientID = a.cfg.ClientID
	}
	// The cookie of the access token has one name: it holds one kind.
	kept := want.ClientID == a.cfg.ClientID && (want.Audience == "" || want.Audience == a.cfg.Audiences[0])
	sessionToken, missing := a.sessionCredential(r, want.ClientID)
	if errors.Is(missing, errAmbiguous) {
		return nil, missing
	}
	if kept {
		token, err := oneCookie(r, accessTokenCookie)
		if errors.Is(err, errAmbiguous) {
			return nil, err
		}
		if err == nil {
			claims, err := check(r.Context(), token)
			// Somebody else may have signed in since: the access token must
			// be of the session that the other cookie names.
			if err == nil && (missing != nil || strings.HasPrefix(sessionToken, string(opaque.SessionToken)+claims.SessionID)) {
				return &BrowserAccess{AccessToken: token, Claims: claims}, nil
			}
			if err != nil && !mended(err) {
				return nil, err
			}
		}
	}
	if missing != nil {
		return nil, missing
	}
	grant, claims, err := a.refreshAndCheck(r.Context(), sessionToken, want, check)
	if err != nil {
		return nil, proofPending(r, err)
	}
	access := &BrowserAccess{AccessToken: grant.AccessToken, Claims: claims}
	if kept {
		access.Cookie = &http.Cookie{
			Name: accessTokenCookie, Value: grant.AccessToken, Path: "/",
			MaxAge: max(1, int(grant.ExpiresIn/time.Second)),
			Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		}
	}
	return access, nil
}

// refreshAndCheck refreshes once more when the rights changed after the
// snapshot of a refresh that was joined.
func (a *Authority) refreshAndCheck(ctx context.Context, sessionToken string, want RefreshRequest, check func(context.Context, string) (*verify.Claims, error)) (*Grant, *verify.Claims, error) {
	for again := true; ; again = false {
		grant, err := a.refreshOnce(ctx, sessionToken, want)
		if err != nil {
			return nil, nil, err
		}
		claims, err := check(ctx, grant.AccessToken)
		if err == nil {
			return grant, claims, nil
		}
		if grant.Degraded && errors.Is(err, verify.ErrTokenTooOld) {
			// There is none younger before the store is back.
			return nil, nil, fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
		}
		if !again || !errors.Is(err, verify.ErrTokenStale) {
			return nil, nil, err
		}
	}
}

// mended reports whether a fresh access token may mend the refusal. After a
// step-up it carries the new time of authentication.
func mended(err error) bool {
	for _, cause := range []error{
		verify.ErrTokenInvalid, verify.ErrTokenExpired, verify.ErrTokenStale,
		verify.ErrTokenRevoked, verify.ErrTokenTooOld, verify.ErrAudienceMismatch,
		verify.ErrInsufficientUserAuthentication,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

const refreshDeadline = 10 * time.Second

// refreshOnce is one refresh for all requests with this session token that
// come while it is under way. The whole token is in the key: who has a wrong
// secret never shares a right one's answer.
func (a *Authority) refreshOnce(ctx context.Context, sessionToken string, want RefreshRequest) (*Grant, error) {
	key := want.ClientID + "\x00" + want.Audience + "\x00" + sessionToken
	shared := a.refreshing.DoChan(key, func() (_ any, err error) {
		defer func() {
			// This is no goroutine of net/http: a panic of the Claims hook
			// would end the process.
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: refresh panicked: %v", verify.ErrUnavailable, p)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshDeadline)
		defer cancel()
		return a.Refresh(ctx, sessionToken, want)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-shared:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*Grant), nil
	}
}

// refuse answers for a page. The application's own answers are for the
// requests that came with cookies, never for those with a Bearer token.
func (a *Authority) refuse(w http.ResponseWriter, r *http.Request, err error) {
	a.counters.browserRefusals.countError(err)
	var ended *EndedError
	answer := verify.WriteError
	switch {
	case a.cfg.SignedOut != nil && (errors.As(err, &ended) || errors.Is(err, errMissing) || errors.Is(err, verify.ErrProofRequired)):
		answer = a.cfg.SignedOut
	case a.cfg.StepUp != nil && errors.Is(err, verify.ErrInsufficientUserAuthentication):
		answer = a.cfg.StepUp
	}
	noStore(w)
	answer(w, r, err)
}

// uncached keeps an answer that sets a credential out of every cache, whatever
// the page says of itself. Streaming and hijacking pass through.
type uncached struct {
	http.ResponseWriter
	done bool
}

func (u *uncached) forbid() {
	if !u.done {
		u.done = true
		noStore(u.ResponseWriter)
	}
}

func (u *uncached) WriteHeader(status int) {
	u.forbid()
	u.ResponseWriter.WriteHeader(status)
}

func (u *uncached) Write(b []byte) (int, error) {
	u.forbid()
	return u.ResponseWriter.Write(b)
}

// Flush implements [http.Flusher] for handlers that assert it.
func (u *uncached) Flush() { _ = u.FlushError() }

// FlushError is what [http.ResponseController] calls.
func (u *uncached) FlushError() error {
	u.forbid()
	return http.NewResponseController(u.ResponseWriter).Flush()
}

// Unwrap lets [http.ResponseController] reach the rest.
func (u *uncached) Unwrap() http.ResponseWriter { return u.ResponseWriter }
