package counterfoil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/counterfoil/counterfoil/internal/clientip"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/verify"
)

// Secret is a credential in the clear: a session token, an API key, a
// password-reset token. It redacts itself wherever it is printed or encoded;
// its method Reveal is the one way to its text.
type Secret = opaque.Secret

// Authority owns sessions, signs access tokens and records revocations. Its
// methods are safe for concurrent use. Close ends it.
type Authority struct {
	cfg      Config
	store    Store
	sessions SessionStore
	seal     []sealKey
	log      *slog.Logger

	clock       func() time.Time // Config.Clock as it was given: nil is the system's
	keys        atomic.Pointer[keySet]
	revocations *revoked.Table
	verifiers   map[string]*verify.Verifier // one an audience
	anyAudience *verify.Verifier
	exchanger   *verify.Verifier
	touches     *toucher
	refreshing  singleflight.Group
	apiKeys     apiKeyCache
	follower    *follower
	watches     *sessionWatches
	counters    *counters
	degraded    *degradedMinting // nil: off
	recorded    atomic.Int64     // how long the store makes everybody keep feed entries

	draining atomic.Bool
	stop     func()
	done     sync.WaitGroup
}

// New opens the store, the signing keys (making the first ones) and the
// retained revocations. ctx bounds New only. Errors: a [*FieldError] for the
// configuration, [ErrWrongSeal] when the seal does not open the stored keys,
// and whatever the store says.
func New(ctx context.Context, store Store, config Config) (*Authority, error) {
	clock := config.Clock
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("counterfoil: %w", err)
	}
	// A seal that cannot be used is found before anything is made.
	seal, err := config.Seal.load(true)
	if missing := errors.Is(err, ErrWrongSeal); err != nil && !missing {
		return nil, fmt.Errorf("counterfoil: %w", &FieldError{"Seal", err.Error()})
	}
	if err := store.Open(ctx); err != nil {
		return nil, fmt.Errorf("counterfoil: open store: %w", err)
	}
	if seal == nil {
		if seal, err = makeSeal(ctx, store, config.Seal); err != nil {
			return nil, fmt.Errorf("counterfoil: %w", err)
		}
	}
	a := &Authority{
		cfg: config, store: store, sessions: store.Sessions(), seal: seal, log: config.Logger,
		revocations: revoked.NewTable(config.Clock),
		verifiers:   make(map[string]*verify.Verifier),
		clock:       clock,
		watches:     newSessionWatches(config.MaxWatches),
		counters:    newCounters(),
	}
	a.touches = newToucher(a)
	// Before anything is minted that the entries have to outlive.
	unsettled, err := store.Feed().Retain(ctx, a.retain())
	if err != nil {
		return nil, fmt.Errorf("counterfoil: %w", err)
	}
	a.degraded = newDegradedMinting(a, unsettled)
	if err := a.startKeys(ctx); err != nil {
		return nil, fmt.Errorf("counterfoil: %w", err)
	}
	if err := a.makeVerifiers(); err != nil {
		return nil, fmt.Errorf("counterfoil: %w", err)
	}
	a.follower = newFollower(a)
	if err := a.follower.start(ctx); err != nil {
		return nil, fmt.Errorf("counterfoil: %w", err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	a.done.Go(func() { a.maintain(background) })
	a.done.Go(func() { a.follower.run(background) })
	if a.degraded != nil {
		a.done.Go(func() { a.degraded.outage.run(background) })
	}
	return a, nil
}

// makeSeal makes a seal whose file is missing, unless the store holds keys.
func makeSeal(ctx context.Context, store Store, seal Seal) ([]sealKey, error) {
	ring, err := store.Catalog().Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	keys, err := seal.load(ring.Version > 0)
	if err != nil && !errors.Is(err, ErrWrongSeal) {
		return nil, &FieldError{"Seal", err.Error()}
	}
	return keys, err
}

func (a *Authority) makeVerifiers() (err error) {
	for _, aud := range a.cfg.Audiences {
		if a.verifiers[aud], err = a.newVerifier(aud, 0); err != nil {
			return err
		}
	}
	if a.anyAudience, err = a.newVerifier("", 0); err != nil {
		return err
	}
	a.exchanger, err = a.newVerifier("", exchangeFor)
	return err
}

// Close ends background work, feeds and watches, writes the touches that wait, and closes the
// store (not the database that the caller brought).
func (a *Authority) Close() error {
	a.stop()
	a.watches.close()
	a.done.Wait()
	return a.store.Close()
}

// Config returns the configuration in force, defaults filled in.
func (a *Authority) Config() Config { return a.cfg }

// Now is this node's time.
func (a *Authority) Now() time.Time { return a.now() }

func (a *Authority) now() time.Time { return a.cfg.Clock().UTC() }

// ClientIP is the address of the client that made r, seen through
// [Config.TrustedProxies] only.
func (a *Authority) ClientIP(r *http.Request) string {
	return clientip.From(r, a.cfg.TrustedProxies)
}

// Ready says whether this node can mint: the store answers, has not gone back
// in time ([ErrStoreWentBack]), its clock agrees with ours within 5 s, and this
// node is not about to end ([Authority.Drain]).
func (a *Authority) Ready(ctx context.Context) error {
	if err := a.drained(); err != nil {
		return err
	}
	before := a.now()
	at, err := a.store.Now(ctx)
	if err != nil {
		return fmt.Errorf("%w: store: %w", verify.ErrUnavailable, err)
	}
	if err := a.follower.history.err(); err != nil {
		return fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
	}
	return skew(before, at, a.now())
}

// skew compares the store's clock, read between before and after, with ours.
func skew(before, at, after time.Time) error {
	if at.Before(before.Add(-clockTolerance)) || at.After(after.Add(clockTolerance)) {
		return fmt.Errorf("%w: %w (store %s, here %s)", verify.ErrUnavailable, ErrClockSkew, at.Format(time.RFC3339Nano), after.Format(time.RFC3339Nano))
	}
	return nil
}

// MaxTokenLifetime is the longest exp − iat that this authority signs, on
// whichever of its nodes.
func (a *Authority) MaxTokenLifetime() time.Duration { return a.maxTokenLifetime() }

// maxTokenLifetime counts the tokens of degraded minting from the read, their iat.
func (a *Authority) maxTokenLifetime() time.Duration {
	return max(a.cfg.TokenLifetime, a.cfg.Degraded, time.Duration(a.recorded.Load())-retainMargin)
}

// retain is how long a feed entry must be kept: as long as any token lives
// that it refuses.
func (a *Authority) retain() time.Duration { return a.maxTokenLifetime() + retainMargin }

// Apply tells this process's verifiers about revocations that a store
// committed. Authority's own methods do so before they return. Other processes
// hear of them from the feed log.
func (a *Authority) Apply(revocations ...Revocation) {
	a.counters.revoked(revocations)
	if len(revocations) > 0 {
		a.revocations.Apply(a.keepLongEnough(slices.Clone(revocations))...)
		a.follower.wake()
	}
}

// Verifier verifies access tokens for one of the configured audiences in this
// process: no network, revocations of this process at once. The empty
// audience is the default one.
func (a *Authority) Verifier(audience string) (*verify.Verifier, error) {
	if audience == "" {
		audience = a.cfg.Audiences[0]
	}
	v, ok := a.verifiers[audience]
	if !ok {
		return nil, &FieldError{"audience", fmt.Sprintf("%q is not one of this issuer's audiences", audience)}
	}
	return v, nil
}

func (a *Authority) knownClient(id string) bool {
	return id == a.cfg.ClientID || slices.Contains(a.cfg.MoreClientIDs, id)
}

// InTx returns the revoking calls inside the application's own transaction,
// so that a password and the revocation commit as one. See [Tx].
func (a *Authority) InTx(tx *sql.Tx) (*Tx, error) {
	sessions, err := a.store.InTx(tx)
	if err != nil {
		return nil, fmt.Errorf("counterfoil: %w", err)
	}
	return &Tx{authority: a, tx: tx, sessions: sessions}, nil
}
