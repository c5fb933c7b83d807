package counterfoil

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// Grant is what one sign-in or refresh gives: the session and a fresh access
// token, and with a sign-in (or a new secret) the session token.
type Grant struct {
	Session Session
	// SessionToken is zero on a refresh: the client has it.
	SessionToken Secret
	AccessToken  string
	ExpiresAt    time.Time     // of the access token
	ExpiresIn    time.Duration // the same, counted from when it was issued
	RefreshAfter time.Duration // when to ask for the next one; jittered
	ServerTime   time.Time
	// Degraded says that this node is cut off from its store and minted from a
	// copy of the session ([Config.Degraded]).
	Degraded bool

	cookie string
}

// Cookie names (RFC 6265bis section 4.1.3.2: __Host- binds them to one host).
const (
	sessionCookie     = "__Host-counterfoil"
	accessTokenCookie = verify.AccessTokenCookie
)

func (a *Authority) cookieName(clientID string) string {
	if clientID == a.cfg.ClientID {
		return sessionCookie
	}
	return sessionCookie + "-" + clientID
}

// Cookie is the Set-Cookie of the session token. Max-Age is what is left of
// the session's absolute life.
func (g *Grant) Cookie() *http.Cookie {
	return &http.Cookie{
		Name: g.cookie, Value: g.SessionToken.Reveal(), Path: "/",
		MaxAge: max(1, int(g.Session.ExpiresAt.Sub(g.ServerTime)/time.Second)),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// SetCookie sets the session cookie and forbids caches to keep the answer.
// It does nothing when the grant carries no session token.
func (g *Grant) SetCookie(w http.ResponseWriter) {
	if g.SessionToken.IsZero() {
		return
	}
	http.SetCookie(w, g.Cookie())
	noStore(w)
}

// ClearCookies deletes the session, access token and bound cookies of an
// application (empty: the default one), as sign-out does.
func (a *Authority) ClearCookies(w http.ResponseWriter, clientID string) {
	if clientID == "" {
		clientID = a.cfg.ClientID
	}
	names := []string{a.cookieName(clientID), a.boundCookieName(clientID)}
	if clientID == a.cfg.ClientID {
		names = append(names, accessTokenCookie)
	}
	for _, name := range names {
		http.SetCookie(w, expired(name))
	}
	noStore(w)
}

func expired(name string) *http.Cookie {
	return &http.Cookie{
		Name: name, Path: "/", MaxAge: -1,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "private, no-store")
}

// SessionTokenFrom takes the session token of an application (empty: the
// default one) from a request: `Authorization: Bearer cf_st_…` wins over the
// cookie, other Authorization values are ignored. Two session cookies are
// refused with [verify.ErrCredentialAmbiguous], none is
// [verify.ErrCredentialMissing]. What is returned is to be handed on as it is:
// the bound cookie of a device-bound session is with it (see [JoinBound]).
func (a *Authority) SessionTokenFrom(r *http.Request, clientID string) (string, error) {
	if clientID == "" {
		clientID = a.cfg.ClientID
	}
	if token, err := bearerSessionToken(r); token != "" || err != nil {
		return token, err
	}
	return a.sessionCredential(r, clientID)
}

func bearerSessionToken(r *http.Request) (string, error) {
	var found string
	for _, value := range r.Header.Values("Authorization") {
		scheme, token, ok := strings.Cut(value, " ")
		token = strings.TrimSpace(token)
		if !ok || !strings.EqualFold(scheme, "Bearer") || !strings.HasPrefix(token, "cf_st_") {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("two session tokens in the Authorization header: %w", errAmbiguous)
		}
		found = token
	}
	return found, nil
}

// oneCookie finds a cookie that must not come twice: of two with one name
// the server cannot know which one the honest page set (RFC 6265bis section 8.6).
func oneCookie(r *http.Request, name string) (string, error) {
	var found string
	var seen bool
	for _, c := range r.CookiesNamed(name) {
		if seen {
			return "", fmt.Errorf("two %s cookies: %w", name, errAmbiguous)
		}
		found, seen = c.Value, true
	}
	if !seen || found == "" {
		return "", errMissing
	}
	return found, nil
}
