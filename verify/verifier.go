package verify

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// TokenType is the typ of an access token's header (RFC 9068 section 2.1).
const TokenType = "at+jwt"

// longestLifetime bounds exp - iat where nobody has said less.
const longestLifetime = time.Hour

// Verifier checks access tokens. All methods are safe for concurrent use.
type Verifier struct {
	issuer      string
	audience    string // empty: any
	algorithms  []jws.Alg
	clock       func() time.Time
	log         *slog.Logger
	origins     *http.CrossOriginProtection
	revocations *revoked.Table
	warm        *warmTable // nil: every token is checked in full
	keys        keySource
	live        func(ctx context.Context, token string, c *Claims) error // nil: no way to ask
	liveTimeout time.Duration
	feedAge     func() (time.Duration, bool) // nil: nothing is heard of revocations
	checks      *feedChecks
	degraded    atomic.Uint64 // requests with a token of degraded minting
	watches     watches
	exchange    time.Duration
	close       func() error
}

// keySource finds keys by kid. Whatever changes the keys also makes a new
// version of the revocations, afterwards, so that warm tokens ask again.
type keySource interface {
	// find returns the key. The error is ErrUnavailable while there are no
	// keys, otherwise ErrTokenInvalid.
	find(ctx context.Context, kid string, now time.Time) (knownKey, error)
	// known is find without I/O: false where find would wait or fail.
	known(kid string, now time.Time) (knownKey, bool)
	ready() bool
	wait(ctx context.Context) error
}

// knownKey is a key and what holds for its tokens now.
type knownKey struct {
	key     *jws.PublicKey
	longest time.Duration // the longest lifetime of tokens
	left    time.Duration // how long the key is trusted if nothing more is heard
}

// Local is what a verifier in the authority's own process stands on.
type Local struct {
	// Key returns a key that is published at present. It does no I/O. Whoever
	// changes what it returns calls Revocations.Advance afterwards.
	Key func(kid string) (*jws.PublicKey, bool)
	// Revocations is the table that the authority applies its revocations to.
	Revocations *revoked.Table
	// Live tells whether the session of these verified claims goes on: nil,
	// or one of this package's errors. Any other error counts as unavailable.
	// Nil: the verifier cannot ask.
	Live func(ctx context.Context, c *Claims) error
	// MaxTokenLifetime bounds exp - iat. Nil: an hour.
	MaxTokenLifetime func() time.Duration
	// FeedAge tells how long ago, at most, the store was read to its end for
	// Revocations; false while that is not known. It serves [MaxFeedAge]. Nil:
	// nothing is told.
	FeedAge func() (time.Duration, bool)
	// ExchangeFor is for the one place where an access token that no longer
	// serves is traded for a fresh one: tokens are taken up to so long after
	// their exp, and stale ones too. 0 everywhere else.
	ExchangeFor time.Duration
}

// NewLocal returns a verifier for the authority's own process. It uses no
// network: Authority, APIKey, Cache and HTTPClient of the configuration do
// nothing. Only errors of the configuration are returned.
func NewLocal(cfg Config, local Local) (*Verifier, error) {
	systemTime := cfg.Clock == nil
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if local.Key == nil {
		return nil, errors.New("verify: Local.Key is required")
	}
	if local.Revocations == nil {
		local.Revocations = revoked.NewTable(cfg.Clock)
	}
	if local.ExchangeFor > 0 {
		cfg.CacheTokens = -1 // such a token is seen once
	}
	v := newVerifier(cfg, local.Revocations, systemTime)
	v.keys = localKeys{local}
	v.feedAge = local.FeedAge
	v.exchange = local.ExchangeFor
	if ask := local.Live; ask != nil {
		v.live = newAsker(cfg.LiveTimeout, func(ctx context.Context, _ string, c *Claims) error { return ask(ctx, c) }).ask
	}
	return v, nil
}

// newVerifier makes a verifier without keys. systemTime tells that the clock is
// the system's, so that warm tokens need not read it each time.
func newVerifier(cfg Config, table *revoked.Table, systemTime bool) *Verifier {
	v := &Verifier{
		issuer:      cfg.Issuer,
		audience:    cfg.Audience,
		clock:       cfg.Clock,
		log:         cfg.Logger,
		origins:     http.NewCrossOriginProtection(),
		revocations: table,
		liveTimeout: cfg.LiveTimeout,
		checks:      newFeedChecks(newFeedAge()),
		close:       func() error { return nil },
	}
	if cfg.CacheTokens > 0 {
		v.warm = newWarmTable(cfg.CacheTokens, systemTime)
	}
	for _, a := range cfg.Algorithms {
		v.algorithms = append(v.algorithms, jws.Alg(a))
	}
	for _, origin := range cfg.TrustedOrigins {
		// validate has tried each.
		_ = v.origins.AddTrustedOrigin(origin)
	}
	return v
}

type localKeys struct{ Local }

func (l localKeys) find(_ context.Context, kid string, now time.Time) (knownKey, error) {
	if k, ok := l.known(kid, now); ok {
		return k, nil
	}
	return knownKey{}, errUnknownKey
}

func (l localKeys) known(kid string, _ time.Time) (knownKey, bool) {
	longest := longestLifetime
	if l.MaxTokenLifetime != nil {
		longest = l.MaxTokenLifetime()
	}
	key, ok := l.Key(kid)
	return knownKey{key, longest, longestDiscovered}, ok && key != nil
}

func (localKeys) ready() bool                { return true }
func (localKeys) wait(context.Context) error { return nil }

var (
	errUnknownKey   = invalid("unknown kid")
	errRevokedKey   = invalid("revoked kid")
	errBadKeyAlg    = invalid("the key's algorithm is not among Config.Algorithms")
	errWrongType    = invalid("typ is not " + TokenType)
	errWrongIssuer  = invalid("iss is not the configured issuer")
	errFromFuture   = invalid("iat is in the future")
	errNotYet       = invalid("nbf is in the future")
	errLivesTooLong = invalid("exp - iat is beyond what the authority issues")
	errOldFeed      = errors.New("the feed of revocations is older than the route takes, and there is no way to ask the authority")
	errDegraded     = because(ErrTokenTooOld, errors.New("the authority was cut off from its store when it minted the token, and the route does not take that"))
	errNoRecentAuth = errors.New("auth_time is missing or too far back")
	errRoleMissing  = errors.New("a role is missing")
	errScopeMissing = errors.New("a scope is missing")
)

// Ready reports whether the verifier has keys to verify with. Until then it
// answers every token with [ErrUnavailable].
func (v *Verifier) Ready() bool { return v.keys.ready() }

// Wait returns when the verifier is ready, or with the error of ctx.
func (v *Verifier) Wait(ctx context.Context) error { return v.keys.wait(ctx) }

// Close ends background work. Verification goes on with the keys at hand.
func (v *Verifier) Close() error { return v.close() }

// Check verifies a token and the rules without HTTP, just as Require does. The
// error is an *[Error]. [Cookie] has no effect. A rule that the verifier
// cannot keep is answered with [ErrUnavailable]; [Verifier.Checker] finds it
// out when the program starts.
func (v *Verifier) Check(ctx context.Context, token string, rules ...Rule) (*Claims, error) {
	if len(rules) == 0 {
		return v.check(ctx, token, &noRules)
	}
	r, err := v.compile(rules)
	if err != nil {
		return nil, because(ErrUnavailable, err)
	}
	return v.check(ctx, token, &r)
}

var noRules ruleset

// Checker is Check with its rules weighed once. It panics for a rule that the
// verifier cannot keep, as Require does.
func (v *Verifier) Checker(rules ...Rule) func(ctx context.Context, token string) (*Claims, error) {
	r := v.mustCompile(rules)
	return func(ctx context.Context, token string) (*Claims, error) { return v.check(ctx, token, r) }
}

func (v *Verifier) check(ctx context.Context, token string, r *ruleset) (*Claims, error) {
	var err error
	c := v.recall(token)
	if c == nil {
		c, err = v.local(ctx, token, v.clock())
	}
	if err == nil {
		err = v.hold(ctx, token, c, r)
	}
	if err != nil {
		if v.log.Enabled(ctx, slog.LevelDebug) {
			v.log.DebugContext(ctx, "access token refused", "error", err)
		}
		return nil, err
	}
	return c, nil
}

// local checks all that the token and this process know, and remembers a token
// that is good.
func (v *Verifier) local(ctx context.Context, token string, now time.Time) (*Claims, error) {
	// Before anything is asked that a later version could answer differently.
	version := v.revocations.Version()
	msg, err := jws.Parse(token)
	if err != nil {
		return nil, because(ErrTokenInvalid, err)
	}
	if msg.Header.Typ != TokenType {
		return nil, errWrongType
	}
	c, err := parseClaims(msg.Payload)
	if err != nil {
		return nil, because(ErrTokenInvalid, err)
	}
	// A key is a key of one issuer: the issuer first.
	if c.Issuer != v.issuer {
		return nil, errWrongIssuer
	}
	if v.revocations.KeyRevoked(msg.Header.Kid) {
		return nil, errRevokedKey
	}
	k, err := v.keys.find(ctx, msg.Header.Kid, now)
	if err != nil {
		return nil, err
	}
	if v.algorithms != nil && !slices.Contains(v.algorithms, k.key.Alg()) {
		return nil, errBadKeyAlg
	}
	if err := msg.Verify(k.key); err != nil {
		return nil, because(ErrTokenInvalid, err)
	}
	c.token, c.verifier = token, v
	// The issuer has said all this. From here on answers may be precise.
	switch {
	case v.audience != "" && c.Audience != v.audience:
		return nil, ErrAudienceMismatch
	case c.IssuedAt.After(now.Add(leeway)):
		return nil, errFromFuture
	case c.IssuedAt.Add(time.Duration(c.notBefore) * time.Second).After(now.Add(leeway)):
		return nil, errNotYet
	case c.ExpiresAt.Sub(c.IssuedAt) > k.longest:
		return nil, errLivesTooLong
	case !now.Before(c.ExpiresAt.Add(leeway + v.exchange)):
		return nil, ErrTokenExpired
	}
	switch v.revocations.Check(c.query()) {
	case revoked.Revoked:
		return nil, ErrTokenRevoked
	case revoked.Stale:
		if v.exchange == 0 {
			return nil, ErrTokenStale
		}
	}
	v.remember(token, c, k, version, now.UnixNano())
	return c, nil
}

// hold checks the rules of the route. What a refresh or a step-up can mend
// comes before what it cannot.
func (v *Verifier) hold(ctx context.Context, token string, c *Claims, r *ruleset) error {
	live := r.live
	if c.Degraded {
		v.degraded.Add(1)
		if r.noDegraded || live || r.maxFeedAge > 0 {
			return errDegraded
		}
	}
	if r.maxTokenAge > 0 && !live && v.clock().Sub(c.IssuedAt) > r.maxTokenAge {
		if v.live == nil || r.refreshWhenOld || c.Degraded {
			return ErrTokenTooOld
		}
		live = true
	}
	switch {
	case live:
		if err := v.live(ctx, token, c); err != nil {
			return err
		}
	case r.maxFeedAge > 0 && !v.fresh(r.maxFeedAge):
		if v.live == nil {
			return because(ErrUnavailable, errOldFeed)
		}
		if err := v.checks.check(ctx, v, token, c, r.maxFeedAge); err != nil {
			return err
		}
	}
	if r.maxAuthAge > 0 {
		age := v.clock().Sub(c.AuthTime)
		if c.AuthTime.IsZero() || age > r.maxAuthAge || age < -leeway {
			e := *ErrInsufficientUserAuthentication.(*Error)
			e.MaxAge, e.Cause = r.maxAuthAge, errNoRecentAuth
			return &e
		}
	}
	for _, s := range r.scope {
		if !c.HasScope(s) {
			e := *ErrInsufficientScope.(*Error)
			e.Scope, e.Cause = r.scope, errScopeMissing
			return &e
		}
	}
	for _, role := range r.roles {
		if !c.HasRole(role) {
			return because(ErrInsufficientScope, errRoleMissing)
		}
	}
	return nil
}
