package counterfoil

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

// Config configures an [Authority]. Zero values mean the stated default.
type Config struct {
	// Issuer is the `iss` of the access tokens and where verifiers find
	// discovery: an https URL without query, fragment or trailing slash.
	// Plain http is taken on loopback only.
	Issuer string
	// Audiences are the services that access tokens may be for; the first is
	// the default. Each access token is for one of them. At least one.
	Audiences []string
	// Seal seals the signing keys at rest. Required.
	Seal Seal
	// Algorithm signs access tokens: "ES256" (default) or "EdDSA". A change
	// retires the keys of the other; tokens in flight stay good.
	Algorithm string
	// TokenLifetime is how long an access token lives, 30 s to 5 min;
	// default 60 s. Up to 1 h with LongTokenLifetime.
	TokenLifetime time.Duration
	// LongTokenLifetime permits a TokenLifetime above 5 min. Verifiers that
	// are cut off let a revoked session in for that long.
	LongTokenLifetime bool
	// Lifetimes bound the sessions; default [Consumer]. A sign-in may ask for others.
	Lifetimes Lifetimes
	// Claims supplies what an access token says about its user, at each
	// mint. Nil: the rights that the session and its subject carry.
	Claims func(ctx context.Context, s Session) (Claims, error)
	// ClientID is the application that signs in here; default "default".
	ClientID string
	// MoreClientIDs are further applications that share this authority. At
	// the same host each has a cookie of its own.
	MoreClientIDs []string
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	// None: the address of the connection is the client's.
	TrustedProxies []netip.Prefix
	// SignedOut answers requests for pages behind [Authority.Browser] that
	// have no live session, or lack the proof of a device-bound one
	// ([verify.ErrProofRequired]), for instance with a redirect to the sign-in
	// page; the error says why. Default: 401 with problem+json.
	SignedOut func(w http.ResponseWriter, r *http.Request, err error)
	// StepUp answers requests for pages behind [Authority.Browser] whose user
	// is signed in and has to prove again who they are ([verify.MaxAuthAge]),
	// for instance with a redirect to the step-up page. err is a
	// [*verify.Error] whose MaxAge is what the page asks for. Send only what a
	// person will see there, requests whose Sec-Fetch-Mode is "navigate"; give
	// scripts, which repeat the request themselves, [verify.WriteError].
	// Default: 401 with problem+json and the challenge of RFC 9470.
	StepUp func(w http.ResponseWriter, r *http.Request, err error)
	// MaxWatches bounds [Authority.WatchSession] in this process: each watch
	// holds a connection of somebody; default 5000.
	MaxWatches int
	// DeviceBinding binds sessions to the browsers that can hold a key for
	// them; on by default.
	DeviceBinding DeviceBinding
	// Degraded lets this node mint while it is cut off from its store, from
	// copies of sessions that it read at most so long ago: whole seconds from
	// 30 s to 1 h; 0, the default, is off. Such a token says degraded, and ends
	// at most Degraded after the session was read; a revocation that this node
	// has not heard of works only then. Every node keeps revocations for as
	// long as the longest that any node was given.
	Degraded time.Duration
	// DegradedSessions is of how many sessions there are copies, the ones read
	// last, at about 1.5 kB each; default 20,000. Without Degraded there are none.
	DegradedSessions int
	// Retention is how long ended and expired sessions stay for audit;
	// default 30 days.
	Retention time.Duration
	// Clock tells the time; default [time.Now]. For tests.
	Clock func() time.Time
	// Logger receives what operators should know; default [slog.Default].
	Logger *slog.Logger
}

// Lifetimes bound a session: Absolute from its start, Idle from its last use.
type Lifetimes struct {
	Absolute time.Duration
	Idle     time.Duration
}

// The profiles: how sensitive is what the session opens?
var (
	Consumer = Lifetimes{Absolute: 30 * 24 * time.Hour, Idle: 7 * 24 * time.Hour}
	Business = Lifetimes{Absolute: 24 * time.Hour, Idle: time.Hour}
	Strict   = Lifetimes{Absolute: 12 * time.Hour, Idle: 15 * time.Minute}
)

const (
	minTokenLifetime     = 30 * time.Second
	maxShortLifetime     = 5 * time.Minute
	maxLongLifetime      = time.Hour
	defaultTokenLifetime = 60 * time.Second
	minIdle              = time.Minute
	// maxAbsolute is where browsers cap a cookie's life.
	maxAbsolute      = 400 * 24 * time.Hour
	defaultRetention = 30 * 24 * time.Hour
	defaultClientID  = "default"
	defaultWatches   = 5000

	// clockTolerance is how far this node's clock may be from the store's.
	clockTolerance = 5 * time.Second
	// retainMargin covers the verifiers' leeway (5 s), the mint error (5 s)
	// and 5 s more (protocol section 5).
	retainMargin = 15 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Algorithm == "" {
		c.Algorithm = string(jws.ES256)
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = defaultTokenLifetime
	}
	if c.Lifetimes == (Lifetimes{}) {
		c.Lifetimes = Consumer
	}
	if c.ClientID == "" {
		c.ClientID = defaultClientID
	}
	if c.MaxWatches == 0 {
		c.MaxWatches = defaultWatches
	}
	if c.DegradedSessions == 0 {
		c.DegradedSessions = defaultDegradedSessions
	}
	if c.Retention == 0 {
		c.Retention = defaultRetention
	}
	if c.DeviceBinding.Window == 0 {
		c.DeviceBinding.Window = defaultWindow
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Audiences = slices.Clone(c.Audiences)
	c.MoreClientIDs = slices.Clone(c.MoreClientIDs)
	return c
}

var (
	nameShape   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$`)
	clientShape = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)
	reasonShape = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
)

// takenCookie reports whether the session cookie of a further application
// would have the name of a cookie that means something else: the access token's,
// a bound one, that of passkey ceremonies, that of notes on hosted pages.
func takenCookie(clientID string) bool {
	return slices.Contains([]string{"at", "bound", "ceremony", "note"}, clientID) || strings.HasPrefix(clientID, "bound-")
}

func (c *Config) validate() error {
	if err := validIssuer(c.Issuer); err != nil {
		return err
	}
	if len(c.Audiences) == 0 {
		return &FieldError{"Audiences", "name at least one audience, the service that access tokens are for"}
	}
	for i, aud := range c.Audiences {
		if !nameShape.MatchString(aud) {
			return &FieldError{fmt.Sprintf("Audiences[%d]", i), fmt.Sprintf("%q must be 1 to 128 letters, digits or . _ : / -", aud)}
		}
	}
	clients := append([]string{c.ClientID}, c.MoreClientIDs...)
	for i, id := range clients {
		field := "ClientID"
		if i > 0 {
			field = fmt.Sprintf("MoreClientIDs[%d]", i-1)
		}
		if !clientShape.MatchString(id) {
			return &FieldError{field, fmt.Sprintf("%q must be 1 to 64 lower-case letters, digits, _ or -", id)}
		}
		if slices.Contains(clients[:i], id) {
			return &FieldError{field, fmt.Sprintf("%q is named twice", id)}
		}
		if i > 0 && takenCookie(id) {
			return &FieldError{field, fmt.Sprintf("%q would give the application's session cookie the name of another cookie: choose another", id)}
		}
	}
	switch jws.Alg(c.Algorithm) {
	case jws.ES256, jws.EdDSA:
	default:
		return &FieldError{"Algorithm", fmt.Sprintf("%q is not one of ES256, EdDSA", c.Algorithm)}
	}
	longest := maxShortLifetime
	if c.LongTokenLifetime {
		longest = maxLongLifetime
	}
	if c.TokenLifetime < minTokenLifetime || c.TokenLifetime > longest || c.TokenLifetime%time.Second != 0 {
		return &FieldError{"TokenLifetime", fmt.Sprintf("%s must be whole seconds from %s to %s", c.TokenLifetime, minTokenLifetime, longest)}
	}
	if c.Seal.load == nil {
		return &FieldError{"Seal", "is required: SealFile, SealText or SealSecrets"}
	}
	if err := c.DeviceBinding.validate(); err != nil {
		return err
	}
	if c.Retention < 0 {
		return &FieldError{"Retention", "must not be negative"}
	}
	if c.MaxWatches < 0 {
		return &FieldError{"MaxWatches", "must not be negative"}
	}
	if err := c.validateDegraded(); err != nil {
		return err
	}
	return c.Lifetimes.validate("Lifetimes")
}

func (l Lifetimes) validate(field string) error {
	if l.Idle < minIdle || l.Absolute > maxAbsolute || l.Idle > l.Absolute {
		return &FieldError{field, fmt.Sprintf("idle %s and absolute %s: need %s ≤ idle ≤ absolute ≤ %s", l.Idle, l.Absolute, minIdle, maxAbsolute)}
	}
	return nil
}

func validIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		return &FieldError{"Issuer", "is required: the https URL that access tokens name as iss"}
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || u.String() != issuer:
		return &FieldError{"Issuer", fmt.Sprintf("%q must be a plain https URL", issuer)}
	case u.Path != "" && u.Path[len(u.Path)-1] == '/':
		return &FieldError{"Issuer", fmt.Sprintf("%q must not end with a slash", issuer)}
	case len(issuer) > 256:
		return &FieldError{"Issuer", "must be at most 256 characters"}
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return &FieldError{"Issuer", fmt.Sprintf("%q must be https (plain http is taken on loopback only)", issuer)}
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
