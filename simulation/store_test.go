package simulation

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
)

// nodeStore is the database as one process of an authority reaches it, with
// all that can go wrong on the way, and, in the runs of planted bugs, with one.
type nodeStore struct {
	db      *database
	n       *node
	planted string

	mu    sync.Mutex
	dice  *rand.Rand
	cut   bool          // nothing comes through
	dead  bool          // the process has crashed
	slow  time.Duration // each call takes up to so long
	flaky float64       // how many calls fail
	lossy float64       // how many answers are lost after the call was carried out
	late  float64       // how many transactions commit after others that began later
	pause time.Duration // how long the process stands still after the next read of a session

	copies map[string]counterfoil.Snapshot // for bugs that read old copies
}

func newNodeStore(db *database, n *node, planted string, seed uint64) *nodeStore {
	return &nodeStore{db: db, n: n, planted: planted, dice: rand.New(rand.NewPCG(seed, 11)), late: 0.3, copies: make(map[string]counterfoil.Snapshot)}
}

func (s *nodeStore) bug(name string) bool { return s.planted == name }

func (s *nodeStore) chance(p float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p > 0 && s.dice.Float64() < p
}

// set changes the faults.
func (s *nodeStore) set(change func(*nodeStore)) {
	s.mu.Lock()
	change(s)
	s.mu.Unlock()
	s.db.mu.Lock()
	s.db.ring() // so that whoever waits for news finds out
	s.db.mu.Unlock()
}

var errFault = errors.New("a fault of the simulation")

func unavailable(why string) error {
	return fmt.Errorf("%w: %w: %s", counterfoil.ErrStoreUnavailable, errFault, why)
}

// before is the way to the database.
func (s *nodeStore) before(ctx context.Context, doing string) error {
	s.mu.Lock()
	cut, dead, slow, fails := s.cut, s.dead, s.slow, s.flaky > 0 && s.dice.Float64() < s.flaky
	var d time.Duration
	if slow > 0 {
		d = time.Duration(s.dice.Int64N(int64(slow)))
	}
	s.mu.Unlock()
	switch {
	case dead:
		return unavailable("crashed")
	case cut:
		_ = sleep(ctx, 50*time.Millisecond)
		return unavailable("cut")
	case fails:
		return unavailable(doing + " failed")
	}
	return sleep(ctx, d)
}

// after is the way back.
func (s *nodeStore) after(doing string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.cut || s.lossy > 0 && s.dice.Float64() < s.lossy {
		return unavailable("the answer of " + doing + " was lost")
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// write carries a transaction out: it draws its position first and commits
// later, sometimes after others.
func (s *nodeStore) write(ctx context.Context, doing string, change func(*memstore.Store, int64) ([]counterfoil.Revocation, error), redo func(*memstore.Store)) ([]counterfoil.Revocation, error) {
	if err := s.before(ctx, doing); err != nil {
		return nil, err
	}
	timeline := s.db.inTimeline()
	pos := s.db.begin()
	if s.chance(s.late) {
		s.mu.Lock()
		d := time.Duration(s.dice.Int64N(int64(120 * time.Millisecond)))
		s.mu.Unlock()
		if err := sleep(ctx, d); err != nil {
			s.db.abort(pos)
			return nil, err
		}
	}
	carry := func() ([]counterfoil.Revocation, error) {
		return s.db.commit(pos, timeline, func(m *memstore.Store) ([]counterfoil.Revocation, error) { return change(m, s.db.base) }, redo)
	}
	if s.bug("acknowledged before it is written") && doing == "end" && s.chance(0.5) {
		// The replica answers, and is lost.
		s.db.abort(pos)
		return nil, nil
	}
	entries, err := carry()
	if err == nil {
		err = s.after(doing)
	}
	return entries, err
}

func (s *nodeStore) Open(ctx context.Context) error { return s.before(ctx, "open") }

func (s *nodeStore) Now(ctx context.Context) (time.Time, error) {
	if err := s.before(ctx, "now"); err != nil {
		return time.Time{}, err
	}
	return s.db.clock(), nil
}

func (s *nodeStore) Sessions() counterfoil.SessionStore { return sessions{s} }
func (s *nodeStore) Feed() counterfoil.FeedLog          { return feedLog{s} }
func (s *nodeStore) Catalog() counterfoil.Catalog       { return catalog{s} }
func (s *nodeStore) Close() error                       { return nil }

// Committed has nothing to do: there are no transactions.
func (s *nodeStore) Committed(context.Context, ...counterfoil.Revocation) error { return nil }

func (s *nodeStore) InTx(*sql.Tx) (counterfoil.SessionStore, error) {
	return nil, counterfoil.ErrNoTransactions
}

type feedLog struct{ *nodeStore }

func (f feedLog) Read(ctx context.Context, after int64, limit int) ([]counterfoil.Revocation, error) {
	if err := f.before(ctx, "read"); err != nil {
		return nil, err
	}
	f.db.mu.Lock()
	defer f.db.mu.Unlock()
	var found []counterfoil.Revocation
	for _, e := range f.db.log {
		if e.Position > after && len(found) < limit {
			found = append(found, e)
		}
	}
	return found, nil
}

func (f feedLog) Head(ctx context.Context) (counterfoil.FeedHead, error) {
	if err := f.before(ctx, "head"); err != nil {
		return counterfoil.FeedHead{}, err
	}
	f.db.mu.Lock()
	defer f.db.mu.Unlock()
	return counterfoil.FeedHead{Timeline: f.db.timeline, Position: f.db.drawn}, nil
}

func (f feedLog) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	if err := f.before(ctx, "tail"); err != nil {
		return nil, err
	}
	return &tail{n: f.nodeStore, after: after, naive: after, in: f.db.inTimeline(), woken: make(chan struct{}, 1)}, nil
}

func (f feedLog) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	return 0, f.nodeStore.before(ctx, "prune") // runs are shorter than what is retained
}

func (f feedLog) Record(ctx context.Context, e counterfoil.Revocation, retain time.Duration) (counterfoil.Revocation, error) {
	write := func(m *memstore.Store) ([]counterfoil.Revocation, error) {
		done, err := m.Feed().Record(context.Background(), e, retain)
		return []counterfoil.Revocation{done}, err
	}
	list, err := f.write(ctx, "record", func(m *memstore.Store, _ int64) ([]counterfoil.Revocation, error) { return write(m) },
		func(m *memstore.Store) { _, _ = write(m) })
	if err != nil {
		return counterfoil.Revocation{}, err
	}
	return list[0], nil
}

func (f feedLog) Retain(ctx context.Context, _ time.Duration) (time.Duration, error) {
	return 0, f.before(ctx, "retain") // nor is anything pruned
}

type catalog struct{ *nodeStore }

func (c catalog) Keys(ctx context.Context) (ring counterfoil.KeyRing, err error) {
	if err := c.before(ctx, "keys"); err != nil {
		return ring, err
	}
	err = c.db.read(func(m *memstore.Store, base int64) (err error) {
		ring, err = m.Catalog().Keys(ctx)
		if ring.Version > 0 {
			ring.Version += base
		}
		return err
	})
	return ring, err
}

func (c catalog) UpdateKeys(ctx context.Context, retain time.Duration, fn func(*counterfoil.KeyRing) error) (ring counterfoil.KeyRing, revocations []counterfoil.Revocation, err error) {
	var after counterfoil.KeyRing
	revocations, err = c.write(ctx, "update keys", func(m *memstore.Store, base int64) (r []counterfoil.Revocation, err error) {
		ring, r, err = m.Catalog().UpdateKeys(context.WithoutCancel(ctx), retain, fn)
		after = ring
		ring.Version += base
		c.db.noteKeys()
		return r, err
	}, func(m *memstore.Store) {
		_, _, _ = m.Catalog().UpdateKeys(context.Background(), retain, func(r *counterfoil.KeyRing) error {
			r.Keys = after.Keys
			return nil
		})
	})
	return ring, revocations, err
}

func (c catalog) CreateAPIKey(ctx context.Context, k counterfoil.APIKey) error {
	redo := func(m *memstore.Store) { _ = m.Catalog().CreateAPIKey(context.Background(), k) }
	_, err := c.write(ctx, "create API key", func(m *memstore.Store, _ int64) ([]counterfoil.Revocation, error) {
		return nil, m.Catalog().CreateAPIKey(ctx, k)
	}, redo)
	return err
}

func (c catalog) APIKey(ctx context.Context, id string) (k counterfoil.APIKey, err error) {
	if err := c.before(ctx, "API key"); err != nil {
		return k, err
	}
	err = c.db.read(func(m *memstore.Store, _ int64) (err error) {
		k, err = m.Catalog().APIKey(ctx, id)
		return err
	})
	return k, err
}

func (c catalog) UpdateAPIKey(ctx context.Context, id string, fn func(*counterfoil.APIKey) error) (k counterfoil.APIKey, err error) {
	if err := c.before(ctx, "update API key"); err != nil {
		return k, err
	}
	err = c.db.read(func(m *memstore.Store, _ int64) (err error) {
		k, err = m.Catalog().UpdateAPIKey(ctx, id, fn)
		return err
	})
	return k, err
}

func (c catalog) APIKeys(ctx context.Context) (all []counterfoil.APIKey, err error) {
	if err := c.before(ctx, "API keys"); err != nil {
		return nil, err
	}
	err = c.db.read(func(m *memstore.Store, _ int64) (err error) {
		all, err = m.Catalog().APIKeys(ctx)
		return err
	})
	return all, err
}
