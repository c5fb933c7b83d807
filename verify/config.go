package verify

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// leeway is how far clocks may differ: a token serves this much longer than
// it says, and may come from this far in the future. It is fixed, since
// revocations are kept for just as long.
const leeway = 5 * time.Second

// Config is what a [Verifier] needs to know. Issuer and Audience are
// required; every other zero value is a good default.
type Config struct {
	// Issuer is what the iss of every token must be, character by character.
	Issuer string
	// Audience is the name of this service: what the aud of every token must be.
	Audience string

	// Authority is the base address to fetch keys from and to ask for live
	// checks, where that is not the issuer's own: an internal address, or a
	// prefix. "/.well-known/…" and "/oauth2/introspect" are appended. Plain
	// http is taken: whether the network in between is trusted is the
	// operator's decision.
	Authority string
	// APIKey authenticates the verifier to the authority (scope "verify"). With
	// it the verifier follows the feed of revocations, and routes can ask for
	// live checks. Without it, tokens of sessions that have ended are good until
	// they expire, and routes with [Live] or [MaxFeedAge] cannot be built.
	APIKey string
	// Cache names a file that keeps the key set and the revocations in force, so
	// that the verifier can start while the authority is down. It is replaced
	// as a whole, a few times a minute while the feed is followed, and
	// readable by its owner only; a file that others can read, or of another
	// issuer, is passed over with a warning.
	Cache string
	// HTTPClient makes the requests to the authority. Redirects are never
	// followed, cookies never sent, and each request is bounded in time,
	// whatever the client says. Default: a client of its own.
	HTTPClient *http.Client

	// Algorithms narrows what is accepted, for instance []string{"ES256"}.
	// By default each key of the issuer is good for the one algorithm it is
	// published with, so that a change of algorithm needs no change here; a
	// narrowed verifier refuses every token after such a change, until it is
	// widened again.
	Algorithms []string
	// TrustedOrigins are origins other than the own ("https://app.example")
	// whose pages may send requests of unsafe methods with a cookie to routes
	// with [Cookie].
	TrustedOrigins []string

	// CacheTokens is how many verified tokens are remembered, so that the
	// next request with one needs no signature check; revocations, expiry and
	// rules are looked at each time all the same. Each takes at most 1.3 kB
	// for tokens of the usual size, and all together never more than
	// CacheTokens times that. More tokens than that are checked in full when
	// they come. Default: 8192, which is at most 10.7 MB. A negative number
	// remembers none, and every request pays for a signature check.
	CacheTokens int

	// LiveTimeout bounds a live check. Default: 2 s.
	LiveTimeout time.Duration
	// MaxKeyAge is how long the keys are trusted while the authority cannot
	// be reached; after it every route answers 503. Default: 24 h.
	MaxKeyAge time.Duration

	// Clock tells the time tokens are measured against. Default: time.Now.
	Clock func() time.Time
	// Logger hears of trouble with the authority, and at level debug why
	// tokens are refused. No token is ever logged. Default: slog.Default().
	Logger *slog.Logger

	// AcceptAnyAudience makes the verifier take tokens that were issued for
	// other services of the same issuer. A service that does so can be used
	// with a token stolen at any other. Audience must then be empty.
	AcceptAnyAudience bool
	// WithoutFeed makes the verifier follow no feed though it has an APIKey:
	// unless a route asks, tokens of sessions that have ended are good until
	// they expire, and those of a key that was revoked until the keys are
	// fetched anew.
	WithoutFeed bool
}

const redacted = "[redacted]"

// String shows the configuration without the API key.
func (c Config) String() string {
	if c.APIKey != "" {
		c.APIKey = redacted
	}
	type plain Config // without this method
	return fmt.Sprintf("%+v", plain(c))
}

// GoString is String.
func (c Config) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	if c.Authority == "" {
		c.Authority = c.Issuer
	}
	c.Authority = strings.TrimRight(c.Authority, "/")
	if c.CacheTokens == 0 {
		c.CacheTokens = defaultCacheTokens
	}
	if c.LiveTimeout == 0 {
		c.LiveTimeout = 2 * time.Second
	}
	if c.MaxKeyAge == 0 {
		c.MaxKeyAge = 24 * time.Hour
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// validate checks what every verifier needs.
func (c Config) validate() error {
	switch {
	case c.Issuer == "":
		return &ConfigError{"Issuer", "is required: the iss of the tokens to accept"}
	case c.Audience == "" && !c.AcceptAnyAudience:
		return &ConfigError{"Audience", "is required: the name of this service, as the authority's audiences have it"}
	case c.Audience != "" && c.AcceptAnyAudience:
		return &ConfigError{"AcceptAnyAudience", "contradicts Audience; leave one of them out"}
	case c.CacheTokens > maxCacheTokens:
		return &ConfigError{"CacheTokens", fmt.Sprintf("is more than %d", maxCacheTokens)}
	case c.LiveTimeout < 0:
		return &ConfigError{"LiveTimeout", "is negative"}
	case c.MaxKeyAge < 0:
		return &ConfigError{"MaxKeyAge", "is negative"}
	}
	for _, a := range c.Algorithms {
		if !jws.Alg(a).Known() {
			return &ConfigError{"Algorithms", fmt.Sprintf("%q is not one of ES256, EdDSA, RS256, PS256", a)}
		}
	}
	if c.Algorithms != nil && len(c.Algorithms) == 0 {
		return &ConfigError{"Algorithms", "is empty; leave it nil to accept what the issuer uses"}
	}
	for _, origin := range c.TrustedOrigins {
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(origin); err != nil {
			return &ConfigError{"TrustedOrigins", fmt.Sprintf("%q: %v", origin, err)}
		}
	}
	return nil
}

// validateRemote checks what a verifier needs that asks over the network.
func (c Config) validateRemote() error {
	field := "Authority"
	if c.Authority == strings.TrimRight(c.Issuer, "/") {
		field = "Issuer"
	}
	u, err := url.Parse(c.Authority)
	switch {
	case err != nil:
		// The error of url.Parse holds the whole text, which may hold a password.
		return &ConfigError{field, "is not a URL"}
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return &ConfigError{field, "is not an absolute http or https URL"}
	case u.User != nil:
		return &ConfigError{field, "holds a user name or password; use APIKey"}
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return &ConfigError{field, "has a query or fragment"}
	}
	for i := range len(c.APIKey) {
		if c.APIKey[i] <= ' ' || c.APIKey[i] > '~' {
			return &ConfigError{"APIKey", "has a space, a line end or another character that no API key has"}
		}
	}
	return nil
}

// Revocation is one row of the feed log: which access tokens are refused from
// now on though they have not expired. Stores keep its fields as columns; its
// JSON form is the one of the feed.
type Revocation = revoked.Entry

// RevocationKind says what the ID of a [Revocation] names: one letter.
type RevocationKind = revoked.Kind

// The kinds of revocations.
const (
	RevokeSession = revoked.Session
	RevokeSubject = revoked.Subject
	RevokeKey     = revoked.Key
	RevokeToken   = revoked.Token
	RevokeClient  = revoked.Client
)
