// Package memstore keeps everything in memory: for tests and for `serve
// --dev`. It is a complete store, users included, and forgets everything when
// the process ends. It starts no goroutines and takes its time from a clock
// that can be replaced, so it works inside [testing/synctest].
package memstore

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// Store is a [counterfoil.Store] in memory. Make one with [New]. What goes in
// and comes out is copied: callers never share memory with it. All methods
// are safe for concurrent use.
type Store struct {
	clock func() time.Time

	mu       sync.Mutex
	sessions map[string]*session
	order    []*session // newest first
	children map[string]map[string]*session
	subjects map[string]*subject

	log      []counterfoil.Revocation // by position
	position int64                    // the highest ever given
	epoch    int64                    // the highest ever reported
	tails    map[*tail]struct{}
	retain   time.Duration // the least that entries are kept

	ring    counterfoil.KeyRing
	apiKeys map[string]*apiKey

	users      map[string]*user
	emails     map[string]*user // by EmailKey
	counters   map[string]directory.Counter
	ceremonies map[string]directory.Ceremony
}

// Option changes what [New] makes.
type Option func(*Store)

// Clock replaces the system's clock.
func Clock(now func() time.Time) Option {
	return func(s *Store) { s.clock = now }
}

// New returns an empty store.
func New(options ...Option) *Store {
	s := &Store{
		clock:    time.Now,
		sessions: make(map[string]*session),
		children: make(map[string]map[string]*session),
		subjects: make(map[string]*subject),
		tails:    make(map[*tail]struct{}),
		apiKeys:  make(map[string]*apiKey),
		users:    make(map[string]*user),
		emails:   make(map[string]*user),
		counters: make(map[string]directory.Counter), ceremonies: make(map[string]directory.Ceremony),
	}
	for _, o := range options {
		o(s)
	}
	return s
}

// Open has nothing to check.
func (s *Store) Open(ctx context.Context) error { return ctx.Err() }

// Now returns the time of the store's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) { return s.now(), ctx.Err() }

// Sessions returns the sessions and subjects.
func (s *Store) Sessions() counterfoil.SessionStore { return sessions{s} }

// Feed returns the log of revocations.
func (s *Store) Feed() counterfoil.FeedLog { return feed{s} }

// Catalog returns the signing keys and API keys.
func (s *Store) Catalog() counterfoil.Catalog { return catalog{s} }

// Users returns the users. They share the store's one lock, so an advance is
// atomic with the change of the user.
func (s *Store) Users() directory.Store { return users{s} }

// Committed has nothing to do: there are no transactions.
func (s *Store) Committed(context.Context, ...counterfoil.Revocation) error { return nil }

// InTx returns [counterfoil.ErrNoTransactions].
func (s *Store) InTx(*sql.Tx) (counterfoil.SessionStore, error) {
	return nil, counterfoil.ErrNoTransactions
}

// Close has nothing to end: what the store holds stays readable.
func (s *Store) Close() error { return nil }

func (s *Store) now() time.Time { return moment(s.clock()) }

// moment cuts t to what the SQL stores keep, so that a program behaves the
// same on both.
func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// report gives an entry the next position and appends it to the log.
func (s *Store) report(e counterfoil.Revocation, now time.Time, retain time.Duration) counterfoil.Revocation {
	s.position++
	e.Position = s.position
	e.Until = now.Add(max(retain, s.retain) + time.Second - 1).Truncate(time.Second) // whole seconds, rounded up
	s.epoch = max(s.epoch, e.StaleBelow)
	s.log = append(s.log, e)
	s.wakeTails()
	return e
}

// feed is the Store as its FeedLog.
type feed struct{ *Store }

func (f feed) Read(ctx context.Context, after int64, limit int) ([]counterfoil.Revocation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.above(after, max(limit, 0)), nil
}

// above copies at most limit entries above a position; the lock is held.
func (s *Store) above(after int64, limit int) []counterfoil.Revocation {
	i, found := slices.BinarySearchFunc(s.log, after, func(e counterfoil.Revocation, at int64) int {
		return int(min(1, max(-1, e.Position-at)))
	})
	if found {
		i++
	}
	return slices.Clone(s.log[i:min(i+limit, len(s.log))])
}

// timeline is the one there is: nothing is ever restored.
const timeline = 1

func (f feed) Head(ctx context.Context) (counterfoil.FeedHead, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return counterfoil.FeedHead{Timeline: timeline, Position: f.position}, ctx.Err()
}

func (f feed) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Before(before) {
		before = now
	}
	n := 0
	f.log = slices.DeleteFunc(f.log, func(e counterfoil.Revocation) bool {
		if n >= limit || e.Kind == revoked.Key || !e.Until.Before(before) {
			return false
		}
		n++
		return true
	})
	return n, nil
}

func (f feed) Record(ctx context.Context, e counterfoil.Revocation, retain time.Duration) (counterfoil.Revocation, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.Revocation{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.report(e, f.now(), retain), nil
}

func (f feed) Retain(ctx context.Context, d time.Duration) (unsettled time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d > f.retain {
		f.Store.retain = d
		f.wakeTails()
	}
	return 0, nil
}
