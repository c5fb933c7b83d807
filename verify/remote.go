package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	startWait     = 10 * time.Second // how long New waits for keys
	kidWait       = 2 * time.Second  // how long a token with an unknown kid waits for keys
	kidCooldown   = 30 * time.Second // between fetches for unknown kids; up to a third is added
	firstRetry    = time.Second      // after a failed fetch; doubles
	longestRetry  = time.Minute
	firstAgain    = 50 * time.Millisecond // after a fetch that brought not the keys of which the feed spoke; doubles
	longestAgain  = 5 * time.Second
	defaultMaxAge = 5 * time.Minute // of a key set, where the answer does not say
)

// New returns a verifier that fetches its keys from the authority and, with an
// APIKey, follows its feed of revocations. It returns when it has the keys and
// all revocations in force, from the cache file or the network, or when ctx
// ends, or after ten seconds, whichever is first; without them it goes on
// trying, and [Verifier.Ready] and [Verifier.Wait] tell. So a service starts
// while its authority is down.
//
// The error is a *[ConfigError]; an authority that says it is another issuer
// counts as one. Close the verifier when it is no longer needed.
func New(ctx context.Context, cfg Config) (*Verifier, error) {
	systemTime := cfg.Clock == nil
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := cfg.validateRemote(); err != nil {
		return nil, err
	}
	if cfg.Cache != "" {
		if info, err := os.Stat(filepath.Dir(cfg.Cache)); err != nil || !info.IsDir() {
			return nil, &ConfigError{"Cache", fmt.Sprintf("%s is not a directory", filepath.Dir(cfg.Cache))}
		}
	}

	table := revoked.NewTable(cfg.Clock)
	v := newVerifier(cfg, table, systemTime)
	client := newClient(cfg.HTTPClient)
	keys := newRemoteKeys(cfg, client, table)
	v.keys = keys
	if cfg.APIKey != "" {
		v.live = newAsker(cfg.LiveTimeout, newIntrospector(cfg, client).ask).ask
	}
	if cfg.APIKey != "" && !cfg.WithoutFeed {
		v.follow(newFollower(cfg, newFeedClient(client), keys))
		if tap := feed.TapOf(ctx); tap != nil {
			keys.feed.tap = tap
			tap.Open(table)
		}
	}
	v.close = func() error {
		keys.stop()
		client.CloseIdleConnections()
		return nil
	}

	keys.loadCache()
	go keys.run()
	if keys.feed != nil {
		keys.feed.start()
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if keys.wait(ctx) == nil {
		return v, nil
	}
	select {
	case err := <-keys.foreign:
		_ = v.Close()
		return nil, &ConfigError{"Issuer", err.Error()}
	default:
		return v, nil
	}
}

// keySet is what is known of the issuer's keys. It does not change.
type keySet struct {
	version int64
	keys    map[string]*jws.PublicKey
	longest time.Duration // the longest exp - iat that the authority issues
	fetched time.Time
	source  source
}

// source is a key set as it was published.
type source struct{ keys, metadata []byte }

// remoteKeys fetches the key set, keeps it fresh in the background, and holds
// on to it while the authority cannot be reached. A known kid costs no I/O.
type remoteKeys struct {
	issuer    string
	authority string
	cache     string
	maxAge    time.Duration
	clock     func() time.Time
	log       *slog.Logger
	client    *http.Client
	table     *revoked.Table

	set     atomic.Pointer[keySet]
	have    chan struct{} // closed when the first set is there
	foreign chan error    // says that the authority is of another issuer
	wanted  atomic.Int64  // the version that the feed has spoken of
	feed    *follower     // nil: the verifier follows none

	ctx    context.Context // ends with stop
	cancel context.CancelFunc
	ended  chan struct{} // closed when run has returned

	installing sync.Mutex // one set at a time is compared, installed and saved
	saving     sync.Mutex // one file at a time is written

	loading atomic.Int32 // fetches under way

	mu     sync.Mutex
	flight chan struct{} // closed when the fetch for an unknown kid, or for the feed, is over; nil: none under way
	next   time.Time     // no fetch for an unknown kid before
	again  time.Time     // no fetch for keys that the feed has spoken of before
	pause  time.Duration // the last time between two of those
}

func newRemoteKeys(cfg Config, client *http.Client, table *revoked.Table) *remoteKeys {
	r := &remoteKeys{
		issuer:    cfg.Issuer,
		authority: cfg.Authority,
		cache:     cfg.Cache,
		maxAge:    cfg.MaxKeyAge,
		clock:     cfg.Clock,
		log:       cfg.Logger,
		client:    client,
		table:     table,
		have:      make(chan struct{}),
		foreign:   make(chan error, 1),
		ended:     make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *remoteKeys) stop() {
	if r.feed != nil {
		r.feed.stop()
	}
	r.cancel()
	<-r.ended
}

func (r *remoteKeys) ready() bool {
	set := r.set.Load()
	return (r.feed == nil || r.feed.ready()) && set != nil && !r.tooOld(set, r.clock())
}

func (r *remoteKeys) tooOld(set *keySet, now time.Time) bool {
	return now.Sub(set.fetched) > r.maxAge
}

// wait returns when there are keys and, where the verifier follows the feed,
// all that is retained. While New waits, a foreign authority ends it.
func (r *remoteKeys) wait(ctx context.Context) error {
	needs := []<-chan struct{}{r.have}
	if r.feed != nil {
		needs = append(needs, r.feed.begun)
	}
	for _, need := range needs {
		select {
		case <-need:
			continue
		default:
		}
		select {
		case <-need:
		case err := <-r.foreign:
			r.foreign <- err // it stays true for whoever asks next
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

var (
	errNoKeys   = errors.New("no keys have been fetched yet")
	errOldKeys  = errors.New("the keys are older than Config.MaxKeyAge and the authority cannot be reached")
	errSlowKeys = errors.New("the kid is unknown and the keys are still being fetched")
	errOldSet   = errors.New("the kid is unknown and the authority has newer keys, which could not be fetched yet")
	errNoFeed   = errors.New("the retained revocations have not been heard yet")
)

func (r *remoteKeys) find(ctx context.Context, kid string, now time.Time) (knownKey, error) {
	if r.feed != nil && !r.feed.ready() {
		return knownKey{}, because(ErrUnavailable, errNoFeed)
	}
	if k, ok := r.known(kid, now); ok {
		return k, nil
	}
	set := r.set.Load()
	switch {
	case set == nil:
		return knownKey{}, because(ErrUnavailable, errNoKeys)
	case r.tooOld(set, now):
		return knownKey{}, because(ErrUnavailable, errOldKeys)
	}
	if err := r.refetch(ctx, now); err != nil {
		return knownKey{}, err
	}
	if k, ok := r.known(kid, now); ok {
		return k, nil
	}
	if r.outdated() {
		return knownKey{}, because(ErrUnavailable, errOldSet)
	}
	return knownKey{}, errUnknownKey
}

func (r *remoteKeys) known(kid string, now time.Time) (knownKey, bool) {
	set := r.set.Load()
	if set == nil || r.tooOld(set, now) || set.keys[kid] == nil {
		return knownKey{}, false
	}
	return knownKey{set.keys[kid], set.longest, r.maxAge - now.Sub(set.fetched)}, true
}

// longest is the longest lifetime of tokens, as far as is known.
func (r *remoteKeys) longest() time.Duration {
	if set := r.set.Load(); set != nil {
		return set.longest
	}
	return longestLifetime
}

// outdated reports whether the feed has spoken of keys that are not here.
func (r *remoteKeys) outdated() bool {
	set := r.set.Load()
	return set == nil || set.version < r.wanted.Load()
}

// demand says that the authority has keys of this version. It is called with
// every beat of the feed, so what fails here is tried again.
func (r *remoteKeys) demand(version int64) {
	if version > r.wanted.Load() {
		r.wanted.Store(version) // the feed has one goroutine
	}
	if !r.outdated() || r.loading.Load() > 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight == nil && !r.clock().Before(r.again) {
		r.flight = make(chan struct{})
		go r.fly(r.flight, false)
	}
}

// refetch asks for the keys anew since a kid is unknown. All who come meanwhile
// share one fetch, and after one, good or bad, there is none for a while: who
// makes up kids causes no load. Where the feed has spoken of newer keys there
// will be one soon.
func (r *remoteKeys) refetch(ctx context.Context, now time.Time) error {
	r.mu.Lock()
	flight := r.flight
	if flight == nil {
		soonest := r.next
		if r.outdated() {
			soonest = r.again
		}
		if now.Before(soonest) {
			r.mu.Unlock()
			return nil
		}
		flight = make(chan struct{})
		r.flight = flight
		go r.fly(flight, true)
	}
	r.mu.Unlock()

	timer := time.NewTimer(kidWait)
	defer timer.Stop()
	select {
	case <-flight:
		return nil
	case <-timer.C:
		return because(ErrUnavailable, errSlowKeys)
	case <-ctx.Done():
		return because(ErrUnavailable, ctx.Err())
	}
}

func (r *remoteKeys) fly(flight chan struct{}, forKid bool) {
	if _, err := r.load(r.ctx); err != nil && r.ctx.Err() == nil {
		r.log.Warn("new keys could not be fetched", "authority", r.authority, "error", err)
	}
	now := r.clock()
	r.mu.Lock()
	r.flight = nil
	if forKid {
		r.next = now.Add(kidCooldown + rand.N(kidCooldown/3))
	}
	r.pause = min(max(2*r.pause, firstAgain), longestAgain)
	if !r.outdated() {
		r.pause = 0
	}
	r.again = now.Add(r.pause - rand.N(r.pause/2+1))
	r.mu.Unlock()
	close(flight)
}

// run keeps the keys fresh until stop.
func (r *remoteKeys) run() {
	defer close(r.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := firstRetry
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-timer.C:
		}
		fresh, err := r.load(r.ctx)
		switch {
		case err == nil:
			retry = firstRetry
			timer.Reset(fresh - rand.N(fresh/5))
		case r.ctx.Err() != nil:
			return
		default:
			r.complain(err)
			timer.Reset(retry - rand.N(retry/5))
			retry = min(2*retry, longestRetry)
		}
	}
}

func (r *remoteKeys) complain(err error) {
	set := r.set.Load()
	switch {
	case set == nil:
		r.log.Warn("no keys yet: tokens are answered with 503", "authority", r.authority, "error", err)
	case r.tooOld(set, r.clock()):
		r.log.Error("the keys are too old to be trusted: tokens are answered with 503",
			"authority", r.authority, "fetched", set.fetched, "error", err)
	default:
		r.log.Warn("keys could not be refreshed; the ones at hand stay in use",
			"authority", r.authority, "fetched", set.fetched, "error", err)
	}
}

// load fetches the discovery document and the keys. It returns how long the
// keys stay fresh. Keys are never fetched without the document: the address may
// have become another issuer's.
func (r *remoteKeys) load(ctx context.Context) (time.Duration, error) {
	r.loading.Add(1)
	defer r.loading.Add(-1)
	at := r.clock() // what comes was true no earlier than this
	longest, metadata, err := r.discover(ctx)
	if err != nil {
		return 0, err
	}
	doc, err := fetch(ctx, r.client, r.authority+"/.well-known/jwks.json", "application/jwk-set+json")
	if err != nil {
		return 0, err
	}
	set, err := jwk.ParseSet(doc.body)
	if err != nil {
		return 0, err
	}
	if err := r.install(set, longest, at.Add(-doc.age), source{doc.body, metadata}); err != nil {
		return 0, err
	}
	return max(doc.maxAge-doc.age, leastMaxAge), nil
}

// install replaces the key set as a whole: a key that is gone from it is gone.
// It never goes back to an older version, and takes no set without a key.
func (r *remoteKeys) install(set jwk.Set, longest time.Duration, at time.Time, from source) error {
	if len(set.Keys) == 0 {
		return errors.New("the key set has no key of use")
	}
	r.installing.Lock()
	defer r.installing.Unlock()
	old := r.set.Load()
	if old != nil && set.Version < old.version {
		return fmt.Errorf("the key set has version %d, after %d", set.Version, old.version)
	}
	if old != nil && at.Before(old.fetched) {
		at = old.fetched
	}
	r.use(set, longest, at, from)
	r.saveCache()
	return nil
}

// use makes the set the one in force, and warm tokens look at it anew. A revoked
// key in it stays revoked: the table of revocations is asked before the set is.
func (r *remoteKeys) use(set jwk.Set, longest time.Duration, at time.Time, from source) {
	s := &keySet{
		version: set.Version,
		keys:    make(map[string]*jws.PublicKey, len(set.Keys)),
		longest: longest,
		fetched: at,
		source:  from,
	}
	for _, k := range set.Keys {
		s.keys[k.KID()] = k
	}
	first := r.set.Swap(s) == nil
	r.table.Advance()
	if first {
		close(r.have)
	}
	if r.feed == nil {
		return
	}
	if r.feed.tap != nil {
		r.feed.tap.Keys(feed.KeySet{Version: s.version, Document: from.keys, Discovery: from.metadata, Fetched: at, Longest: longest})
	}
	r.feed.serve()
}
