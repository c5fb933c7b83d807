package httpapi

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// Option changes what a handler serves. A wrong one panics when the handler is
// built, like a bad pattern of a [http.ServeMux].
type Option func(*api)

// WithDirectory adds the calls that need users who sign in here: sign-up,
// sign-in, password, step-up, password-reset and /users. Without it they do
// not exist. The directory must be of the same authority.
func WithDirectory(d *directory.Directory) Option {
	return func(a *api) { a.users = d }
}

// WithOrigins trusts pages of other origins: they may call [Device] with the
// user's cookie (CORS with credentials) and are let through the protection
// against cross-site requests. The handler's own origin needs no mention.
// Each is as the browser sends it, "https://app.example" or
// "http://localhost:3000"; no wildcards. [CheckOrigin] tells a good one.
func WithOrigins(origins ...string) Option {
	return func(a *api) { a.origins = append(a.origins, origins...) }
}

// WithClientID serves [Device] for one application. Its cookie is the only one
// that is looked at, so two applications can share a host. Without it the
// cookies of all applications are looked at, and a request that brings more
// than one is refused.
func WithClientID(id string) Option {
	return func(a *api) { a.clientID = id }
}

// WithLogger is where requests (debug) and failures (warn, error) are logged;
// default that of the authority.
func WithLogger(log *slog.Logger) Option {
	return func(a *api) { a.log = log }
}

// WithMounts says under which prefixes [Device] and [Backend] are mounted, for
// the OpenAPI document of [WellKnown]. An empty one is not documented, which
// is the default. [Handler] needs no telling.
func WithMounts(device, backend string) Option {
	return func(a *api) { a.devicePrefix, a.backendPrefix = device, backend }
}

// api is what all handlers of one authority share. It does not change.
type api struct {
	auth     *counterfoil.Authority
	users    *directory.Directory // nil: there is none
	log      *slog.Logger
	metrics  *Metrics // nil: nothing is counted
	origins  []string
	sameSite *http.CrossOriginProtection
	clientID string   // empty: any
	clients  []string // the applications whose cookies are looked at
	ends     *serverEnds

	devicePrefix  string
	backendPrefix string
	https         bool
	subdomains    bool // HSTS covers them
}

func newAPI(auth *counterfoil.Authority, opts []Option) *api {
	cfg := auth.Config()
	a := &api{
		auth: auth, log: cfg.Logger, sameSite: http.NewCrossOriginProtection(),
		clients: append([]string{cfg.ClientID}, cfg.MoreClientIDs...),
		https:   strings.HasPrefix(cfg.Issuer, "https:"),
		ends:    &serverEnds{},
	}
	for _, opt := range opts {
		opt(a)
	}
	for _, origin := range a.origins {
		if err := CheckOrigin(origin); err != nil {
			panic("httpapi: WithOrigins: " + err.Error())
		}
		if err := a.sameSite.AddTrustedOrigin(origin); err != nil {
			panic("httpapi: WithOrigins: " + err.Error())
		}
	}
	if a.clientID != "" {
		if !slices.Contains(a.clients, a.clientID) {
			panic(fmt.Sprintf("httpapi: WithClientID: %q is not an application of this authority", a.clientID))
		}
		a.clients = []string{a.clientID}
	}
	for _, prefix := range []string{a.devicePrefix, a.backendPrefix} {
		if prefix != "" && (prefix[0] != '/' || prefix[len(prefix)-1] == '/') {
			panic(fmt.Sprintf("httpapi: WithMounts: %q must begin with a slash and not end with one", prefix))
		}
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	return a
}

// CheckOrigin says what is wrong with an origin that [WithOrigins] would
// refuse: for values that come from a configuration.
func CheckOrigin(origin string) error {
	bad := func(why string) error {
		return &counterfoil.FieldError{Field: "origin", Message: fmt.Sprintf("%q %s", origin, why)}
	}
	u, err := url.Parse(origin)
	switch {
	case origin == "null" || origin == "*" || strings.Contains(origin, "*"):
		return bad("is not taken: name each origin by itself")
	case err != nil || u.Host == "" || u.Opaque != "":
		return bad(`must have the form "https://host" or "https://host:port"`)
	case u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(origin, "#"):
		return bad("must end after the host and port")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return bad("must be https (plain http is taken on loopback only)")
	case u.Port() == "" && strings.HasSuffix(u.Host, ":"), u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80":
		return bad("must leave out the default port, as browsers do")
	case origin != strings.ToLower(origin) || !hostname(u.Hostname()):
		return bad("must be spelt as browsers send it: lower case, ASCII (punycode)")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func hostname(host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	for i := range len(host) {
		c := host[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return host != "" && host[0] != '.' && !strings.Contains(host, "..")
}
