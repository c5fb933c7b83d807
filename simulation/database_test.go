package simulation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/memstore"
)

// database is what all nodes share: a memory store, with a log of its own in
// which transactions commit in another order than they draw their positions,
// as PostgreSQL's do, and a record of all writes, so that it can go back to a
// backup.
type database struct {
	clock func() time.Time

	mu       sync.Mutex
	store    *memstore.Store
	replayAt time.Time // not zero: the store's clock while writes are done again
	writes   []write
	history  int   // how often it went back
	base     int64 // added to epochs, positions and key versions since the last restoration
	timeline int64
	log      []counterfoil.Revocation // in the order of commits
	drawn    int64                    // the highest position drawn
	open     map[int64]bool           // positions of transactions under way
	bell     chan struct{}            // closed when something has changed
	keys     map[string]int64         // the key version with which a kid came
}

// write is one transaction, to be done again on a fresh store.
type write struct {
	at time.Time
	do func(*memstore.Store)
}

func newDatabase(clock func() time.Time) *database {
	db := &database{clock: clock, timeline: 1, open: make(map[int64]bool), bell: make(chan struct{}), keys: make(map[string]int64)}
	db.store = memstore.New(memstore.Clock(db.now))
	return db
}

// now is the store's clock; mu is held or the caller is a read of the store.
func (db *database) now() time.Time {
	if !db.replayAt.IsZero() {
		return db.replayAt
	}
	return db.clock()
}

func (db *database) ring() {
	close(db.bell)
	db.bell = make(chan struct{})
}

// begin draws the position of a transaction before it has committed.
func (db *database) begin() int64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.drawn++
	db.open[db.drawn] = true
	return db.drawn
}

// abort ends a transaction without a trace but the gap.
func (db *database) abort(pos int64) {
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.open, pos)
	db.ring()
}

// commit carries out what change does, all at once. Entries that it reports
// get the position drawn before, and more where there are more. It fails when the
// database went back to a backup since.
func (db *database) commit(pos, timeline int64, change func(*memstore.Store) ([]counterfoil.Revocation, error), redo func(*memstore.Store)) ([]counterfoil.Revocation, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if timeline != db.timeline {
		return nil, fmt.Errorf("%w: the connection was lost", counterfoil.ErrStoreUnavailable)
	}
	delete(db.open, pos)
	at := db.clock()
	entries, err := change(db.store)
	for i := range entries {
		e := &entries[i]
		if i == 0 && pos > 0 {
			e.Position = pos
		} else {
			db.drawn++
			e.Position = db.drawn
		}
		db.outward(e)
		db.log = append(db.log, *e)
	}
	if err == nil && redo != nil {
		db.writes = append(db.writes, write{at, redo})
	}
	db.ring()
	return entries, err
}

func (db *database) outward(e *counterfoil.Revocation) {
	if e.StaleBelow > 0 {
		e.StaleBelow += db.base
	}
	if e.RevokedBelow > 0 {
		e.RevokedBelow += db.base
	}
}

// inTimeline is the timeline for a transaction that begins.
func (db *database) inTimeline() int64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.timeline
}

// backup is a place to go back to, of one history.
func (db *database) backup() (place, history int) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return len(db.writes), db.history
}

// restore puts the database back and does what `counterfoil restored` does: a
// new timeline, the old keys ended, and every number that grows above all that
// was ever told. keepKeys leaves the keys out of it, newTimeline false the rest.
func (db *database) restore(to int, keepKeys, newTimeline bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	fresh := memstore.New(memstore.Clock(db.now))
	for _, w := range db.writes[:to] {
		db.replayAt = w.at
		w.do(fresh)
	}
	db.replayAt = time.Time{}
	db.store = fresh
	db.history++
	db.writes = slices.Clip(db.writes[:to])
	ctx := context.Background()
	end := func(s *memstore.Store) {
		_, _, _ = s.Catalog().UpdateKeys(ctx, time.Minute, func(r *counterfoil.KeyRing) error {
			for i := range r.Keys {
				r.Keys[i].State, r.Keys[i].Sealed = counterfoil.KeyRevoked, nil
			}
			return nil
		})
	}
	retained, _ := fresh.Feed().Read(ctx, 0, 1<<30)
	if !newTimeline {
		// Positions go on where the backup ended.
		db.log, db.drawn = nil, 0
		for _, e := range retained {
			db.drawn++
			e.Position = db.drawn
			db.outward(&e)
			db.log = append(db.log, e)
		}
		clear(db.open)
		db.ring()
		return
	}
	if !keepKeys {
		end(fresh)
		db.writes = append(db.writes, write{db.clock(), end})
	}
	db.base = max(db.clock().UnixMicro(), db.base+1)
	db.timeline++
	db.drawn = max(db.base, db.drawn)
	db.log = nil
	retained, _ = fresh.Feed().Read(ctx, 0, 1<<30)
	for _, e := range retained {
		db.drawn++
		e.Position = db.drawn
		db.outward(&e)
		db.log = append(db.log, e)
	}
	clear(db.open)
	db.noteKeys()
	db.ring()
}

// noteKeys remembers with which version each key came; mu is held.
func (db *database) noteKeys() {
	ring, _ := db.store.Catalog().Keys(context.Background())
	for _, k := range ring.Keys {
		if _, known := db.keys[k.ID]; !known {
			db.keys[k.ID] = ring.Version + db.base
		}
	}
}

func (db *database) keyVersion() int64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	ring, _ := db.store.Catalog().Keys(context.Background())
	return ring.Version + db.base
}

// kids are the keys that can sign or verify, with the version they came with.
func (db *database) kids() (active []string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	ring, _ := db.store.Catalog().Keys(context.Background())
	for _, k := range ring.Keys {
		if k.State != counterfoil.KeyRevoked {
			active = append(active, k.ID)
		}
	}
	return active
}

func (db *database) cameWith(kid string) (version int64, ok bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	version, ok = db.keys[kid]
	return version, ok
}

// read runs fn on the store as it is now.
func (db *database) read(fn func(s *memstore.Store, base int64) error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return fn(db.store, db.base)
}

// tail reads the log as it grows.
type tail struct {
	n     *nodeStore
	after int64 // everything at or below was known to the reader when it began
	seen  int   // so many commits of this timeline have been returned
	in    int64 // the timeline
	begun bool
	woken chan struct{}
	naive int64 // the highest position returned, for a reader that does not look back
	held  []counterfoil.Revocation
}

func (t *tail) Wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

func (t *tail) Close() error { return nil }

// outOfOrder keeps the last entry back until others have come, as if it had a
// place after theirs.
func (t *tail) outOfOrder(entries []counterfoil.Revocation) []counterfoil.Revocation {
	if len(entries) == 0 {
		return nil
	}
	last := len(entries) - 1
	told := append(slices.Clone(entries[:last]), t.held...)
	t.held = entries[last:]
	return told
}

func (t *tail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	db := t.n.db
	if t.begun {
		db.mu.Lock()
		bell, changed := db.bell, len(db.log) > t.seen || db.timeline != t.in
		db.mu.Unlock()
		if !changed {
			select {
			case <-bell:
			case <-t.woken:
			case <-ctx.Done():
				return counterfoil.FeedBatch{}, ctx.Err()
			}
		}
	}
	batch := counterfoil.FeedBatch{ReadAt: time.Now()}
	if err := t.n.before(ctx, "tail"); err != nil {
		if t.n.bug("beats lie about the age") && t.begun {
			// Whoever cannot read says that there was nothing new.
			db.mu.Lock()
			defer db.mu.Unlock()
			return counterfoil.FeedBatch{ReadAt: time.Now(), Timeline: t.in, Resolved: t.after}, nil
		}
		return batch, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case db.timeline == t.in:
	case !t.begun:
		t.in = db.timeline
	default:
		t.in, t.seen, t.after, t.naive = db.timeline, 0, 0, 0
	}
	if len(db.log) < t.seen {
		t.seen = len(db.log)
	}
	t.begun = true
	for _, e := range db.log[t.seen:] {
		if e.Position <= t.after || t.n.bug("cursor skips gaps") && e.Position <= t.naive {
			continue
		}
		if t.n.bug("lost event") && t.n.chance(0.2) {
			continue
		}
		batch.Entries = append(batch.Entries, e)
	}
	if t.n.bug("wrong order") {
		batch.Entries = t.outOfOrder(batch.Entries)
	}
	for _, e := range batch.Entries {
		t.naive = max(t.naive, e.Position)
	}
	t.seen = len(db.log)
	batch.Resolved = db.drawn
	for pos := range db.open {
		batch.Resolved = min(batch.Resolved, pos-1)
	}
	if t.n.bug("cursor skips gaps") {
		batch.Resolved = max(t.naive, t.after)
	}
	batch.Timeline = db.timeline
	ring, _ := db.store.Catalog().Keys(context.Background())
	batch.KeyVersion = ring.Version + db.base
	return batch, nil
}
