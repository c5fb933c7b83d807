package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/clientip"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	gatewayPath = "/gateway"
	// rulesHeader has the rules where the query is the client's.
	rulesHeader = "Counterfoil-Rules"
	// codeHeader tells the code of a refusal to proxies that drop its body.
	codeHeader = "Counterfoil-Code"
	// noRules is the value of rulesHeader where any good token will do.
	noRules = "none"
)

// Gateway answers the question that a reverse proxy asks about each request
// before it lets it through: nginx (auth_request), Caddy (forward_auth), Traefik
// (ForwardAuth) or Envoy (ext_authz over HTTP). docs/gateway.md shows the
// configuration of each.
//
// It takes the session cookie, as [counterfoil.Authority.Browser] does, or an
// access token as "Authorization: Bearer". The answer is 200 with the header
// "Authorization: Bearer <access token>", which the proxy hands to the upstream,
// for it to verify by itself, and Set-Cookie when an access token was minted for
// the browser to keep; or the problem. Code and status of a refusal are those
// of the other handlers; the code is in the header Counterfoil-Code too.
//
// What a route wants beyond a good token stands in the query of the URL that
// the proxy is configured with: role and scope (each may come several times),
// max_token_age, max_auth_age, max_feed_age (durations such as 30s), live=1, no_degraded=1, audience. That is
// at the very path at which the handler is mounted. Below it, path and query are
// the client's own, as Envoy appends them: there the rules are in the header
// Counterfoil-Rules, which must be there ("none" for no rule), and the method is
// the request's.
//
//	gateway := http.StripPrefix("/gateway", httpapi.Gateway(auth))
//	mux.Handle("/gateway", gateway)
//	mux.Handle("/gateway/", gateway) // for Envoy
//
// The proxy must be within [counterfoil.Config].TrustedProxies, and say the
// client's method in X-Forwarded-Method or X-Original-Method: requests of unsafe
// methods that bring a cookie from another origin are refused, and so are
// WebSocket handshakes. [WithOrigins] and [WithClientID] apply.
func Gateway(auth *counterfoil.Authority, opts ...Option) http.Handler {
	a := newAPI(auth, opts)
	return a.observe(newGateway(a, ""))
}

type gateway struct {
	api     *api
	prefix  string // the path at which it is mounted
	traffic *traffic
	told    atomic.Bool
}

func newGateway(a *api, prefix string) *gateway {
	return &gateway{api: a, prefix: prefix, traffic: a.metrics.route(gatewayRoute.name)}
}

// beside sends what is asked at the gateway's path to it, and all else to next.
func (g *gateway) beside(next http.Handler) http.Handler {
	mine := g.api.observe(g)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == g.prefix || strings.HasPrefix(r.URL.Path, g.prefix+"/") {
			mine.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// gatewayRoute is what the gateway is to those who describe its failures.
var gatewayRoute = &route{name: "gateway", credential: anyCredential, takes: &inputs{}}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.api.secure(w.Header())
	note(w, gatewayPath)
	seen(w).traffic = g.traffic
	token, err := g.decide(w, r)
	if err != nil {
		w.Header().Set(codeHeader, describe(gatewayRoute, err).Code)
		g.api.fail(w, r, gatewayRoute, err)
		return
	}
	w.Header().Set("Authorization", "Bearer "+token)
	w.Header().Set("Cache-Control", "private, no-store")
	w.WriteHeader(http.StatusOK)
}

// decide returns the access token for the upstream.
func (g *gateway) decide(w http.ResponseWriter, r *http.Request) (string, error) {
	if !clientip.Trusts(r, g.api.auth.Config().TrustedProxies) {
		g.distrust(r)
		return "", errNotAProxy
	}
	question, err := g.read(r)
	if err != nil {
		return "", err
	}
	token, err := bearerOf(r)
	switch {
	case err != nil:
		return "", err
	case token != "":
		return token, g.checkBearer(r, question, token)
	}
	if err := g.api.checkOrigin(question.original); err != nil {
		return "", err
	}
	access, err := g.api.auth.BrowserAccess(r, counterfoil.RefreshRequest{ClientID: g.api.clientID, Audience: question.audience}, question.rules...)
	if err != nil {
		return "", err
	}
	if access.Cookie != nil {
		http.SetCookie(w, access.Cookie)
	}
	return access.AccessToken, nil
}

// distrust tells the operator once: what is refused here is every request.
func (g *gateway) distrust(r *http.Request) {
	if g.told.CompareAndSwap(false, true) {
		g.api.log.Warn("the gateway was asked by an address that is no trusted proxy, and refuses it: name the proxy's address in TrustedProxies (--trusted-proxies)", "address", printable(r.RemoteAddr))
	}
}

func (g *gateway) checkBearer(r *http.Request, q *question, token string) error {
	v, err := g.api.auth.Verifier(q.audience)
	if err != nil {
		return err
	}
	claims, err := v.Check(r.Context(), token, q.rules...)
	if err == nil && g.api.clientID != "" && claims.ClientID != g.api.clientID {
		return verify.ErrTokenInvalid // as with its cookies: this gateway is one application's
	}
	return err
}

// bearerOf is the access token that a client sends by itself, or empty.
func bearerOf(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return "", verify.ErrCredentialAmbiguous
	}
	scheme, token, _ := strings.Cut(strings.Join(values, ""), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil // another scheme is the upstream's business
	}
	token = strings.Trim(token, " ")
	if token == "" {
		return "", verify.ErrTokenInvalid
	}
	return token, nil
}

// question is what a proxy wants to know.
type question struct {
	original *http.Request // as the client sent it: method, host and origin
	audience string
	rules    []verify.Rule
}

var (
	errNotAProxy = &inputError{http.StatusForbidden, "address", "is no trusted proxy's, and the gateway answers nobody else"}
	errNoRules   = bad(rulesHeader, "must be there once: below the gateway's own path the query is the client's, and the rules of the route stand in this header; none for no rule")
	errTwoHosts  = bad("X-Forwarded-Host", "must be there once at most")
)

func (g *gateway) read(r *http.Request) (*question, error) {
	rules, asked := r.URL.RawQuery, true
	if r.URL.Path != g.prefix {
		sent := r.Header[rulesHeader]
		if len(sent) != 1 || sent[0] == "" {
			return nil, errNoRules
		}
		rules, asked = sent[0], false
		if rules == noRules {
			rules = ""
		}
	}
	q, err := parseRules(rules, g.api.auth.Config().Audiences)
	if err != nil {
		return nil, err
	}
	method, err := originalMethod(r, asked)
	if err != nil {
		return nil, err
	}
	if r.Header.Get("Sec-Websocket-Key") != "" || r.Header.Get("Upgrade") != "" {
		// A handshake is a GET, and opens a line on which everything can be said.
		method = http.MethodPost
	}
	q.original = &http.Request{Method: method, Host: r.Host, Header: r.Header, URL: &url.URL{Path: "/"}}
	switch hosts := r.Header["X-Forwarded-Host"]; {
	case len(hosts) > 1 || len(hosts) == 1 && strings.Contains(hosts[0], ","):
		return nil, errTwoHosts
	case len(hosts) == 1:
		q.original.Host = hosts[0]
	}
	return q, nil
}

// originalMethod is the method of the client's request. Proxies ask with GET
// whatever it was, so one that does not say it would have every method taken
// for a safe one; those that send the request's own path send its method too.
func originalMethod(r *http.Request, asked bool) (string, error) {
	const field = "X-Forwarded-Method"
	said := slices.Concat(r.Header[field], r.Header["X-Original-Method"])
	if !asked {
		said = append(said, r.Method)
	}
	if len(said) == 0 {
		return "", bad(field, "is missing: the proxy must set it, or X-Original-Method, to the method of the client's request")
	}
	for _, method := range said {
		if method != said[0] || method == "" {
			return "", bad(field, "and X-Original-Method must agree and be there once each: the proxy must overwrite what clients send")
		}
	}
	return said[0], nil
}

// parseRules reads the rules of a route. Each only makes it stricter, so that
// nobody gains by adding one. What is not understood is refused: a rule with a
// slip in its name would protect nothing.
func parseRules(text string, audiences []string) (*question, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, bad("query", "cannot be read: encode it as application/x-www-form-urlencoded")
	}
	q := &question{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		given := values[name]
		switch name {
		case "role", "scope":
		default:
			if len(given) > 1 {
				return nil, bad(name, "comes more than once")
			}
		}
		for _, value := range given {
			if err := q.rule(name, value, audiences); err != nil {
				return nil, err
			}
		}
	}
	return q, nil
}

// isScope reports whether s is a scope-token of RFC 6749 section 3.3.
func isScope(s string) bool {
	bad := func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' }
	return s != "" && !strings.ContainsFunc(s, bad)
}

func (q *question) rule(name, value string, audiences []string) error {
	var rule verify.Rule
	switch name {
	case "role":
		if value == "" || len(value) > 64 {
			return bad(name, "must be the name of a role")
		}
		rule = verify.Role(value)
	case "scope":
		if !isScope(value) {
			return bad(name, "must be one scope; write several as scope=a&scope=b")
		}
		rule = verify.Scope(value)
	case "live":
		if value != "1" {
			return bad(name, "must be 1, or be left out")
		}
		rule = verify.Live()
	case "no_degraded":
		if value != "1" {
			return bad(name, "must be 1, or be left out")
		}
		rule = verify.NoDegraded()
	case "max_token_age", "max_auth_age":
		age, err := time.ParseDuration(value)
		if err != nil || age < time.Second {
			return bad(name, "must be a duration of at least a second, such as 30s or 10m")
		}
		if rule = verify.MaxTokenAge(age); name == "max_auth_age" {
			rule = verify.MaxAuthAge(age)
		}
	case "max_feed_age":
		// A healthy node is some 10 ms behind the store.
		age, err := time.ParseDuration(value)
		if err != nil || age < 100*time.Millisecond {
			return bad(name, "must be a duration of at least 100ms, such as 500ms or 2s")
		}
		rule = verify.MaxFeedAge(age)
	case "audience":
		if !slices.Contains(audiences, value) {
			return bad(name, "must be one of this issuer's audiences")
		}
		q.audience = value
		return nil
	default:
		return bad("query", "has the unknown rule "+strconv.Quote(printable(name))+": there are role, scope, live, max_token_age, max_auth_age, max_feed_age, no_degraded and audience")
	}
	q.rules = append(q.rules, rule)
	return nil
}
