package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// follower reads a tail and remembers what it was told.
type follower struct {
	*testing.T
	tail counterfoil.Tail
	told map[int64]bool
	last counterfoil.FeedBatch
}

func follow(t *testing.T, store *sqlstore.Store, after int64) *follower {
	t.Helper()
	tail, err := store.Feed().Tail(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tail.Close() })
	return &follower{T: t, tail: tail, told: map[int64]bool{}}
}

// next reads until nothing more is to come at once.
func (f *follower) next() counterfoil.FeedBatch {
	f.Helper()
	for {
		batch, err := f.tail.Next(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range batch.Entries {
			f.told[e.Position] = true
		}
		if f.last = batch; !batch.ReadAt.IsZero() {
			return batch
		}
	}
}

// resolve reads until all up to the position is known.
func (f *follower) resolve(position int64) {
	f.Helper()
	for end := time.Now().Add(30 * time.Second); f.last.Resolved < position; f.next() {
		if time.Now().After(end) {
			f.Fatalf("%d is all that is resolved after 30 s, want %d", f.last.Resolved, position)
		}
	}
}

func (f *follower) wantTold(what string, e counterfoil.Revocation) {
	f.Helper()
	if !f.told[e.Position] {
		f.Errorf("%s, %d, was not told", what, e.Position)
	}
}

func (h *held) end(s counterfoil.SessionStore, id string) counterfoil.Revocation {
	h.Helper()
	ended, err := s.End(h.Context(), endRequest(id))
	h.must(err)
	return ended.Revocations[0]
}

// The transaction that began last may draw its position first. When an older
// one then commits, the snapshot's xmax says nothing of the younger.
func TestTailWaitsForTheYoungerTransaction(t *testing.T) {
	for _, end := range []string{"commit", "rollback"} {
		t.Run(end, func(t *testing.T) {
			h := openTx(t)
			one := insert(t, h.all, session("ann")).Session
			f := follow(t, h.store, 0)
			older := h.tx
			mustExec(t, older, `SELECT txid_current()`)
			h.begin()
			low := h.end(h.in, one.ID)
			// As plain SQL: a savepoint would have a number of its own, above both.
			var high counterfoil.Revocation
			h.must(older.QueryRow(`INSERT INTO counterfoil_feed (kind, ref, until) VALUES ('s', 'x', 4e12) RETURNING id`).Scan(&high.Position))
			if low.Position > high.Position {
				t.Fatal("the test wants them drawn in this order")
			}
			h.must(older.Commit())
			for range 5 {
				f.next()
				f.wantTold("what was committed beside an open transaction", high)
				if f.last.Resolved >= low.Position {
					t.Fatalf("resolved up to %d while %d is open", f.last.Resolved, low.Position)
				}
			}
			after := follow(t, h.store, f.last.Resolved) // as after a lost connection
			later := follow(t, h.store, 0)
			later.next()
			if end == "rollback" {
				h.must(h.tx.Rollback())
				f.resolve(high.Position)
				return
			}
			h.commit()
			for _, f := range []*follower{f, after, later} {
				f.next()
				f.wantTold("what was committed late", low)
				f.resolve(high.Position)
			}
			after.wantTold("what was above Resolved", high)
		})
	}
}

// A transaction that has nothing to do with the log only keeps gaps from
// being forgotten.
func TestTailBesideALongTransaction(t *testing.T) {
	h := openTx(t)
	mustExec(t, h.tx, `SELECT txid_current()`)
	f := follow(t, h.store, 0)
	s := insert(t, h.all, session("ann")).Session
	long := h.tx
	h.begin()
	lost := h.end(h.in, s.ID)
	h.must(h.tx.Rollback())
	for range 5 {
		e := h.end(h.all, insert(t, h.all, session("ben")).Session.ID)
		f.next()
		f.wantTold("what was committed beside a long transaction", e)
		if f.last.Resolved >= lost.Position {
			t.Errorf("resolved up to %d: who drew %d could still be open", f.last.Resolved, lost.Position)
		}
		lost.Position = min(lost.Position, e.Position)
	}
	h.must(long.Rollback())
	f.resolve(head(t, h.store).Position)
}

func head(t *testing.T, store *sqlstore.Store) counterfoil.FeedHead {
	t.Helper()
	head, err := store.Feed().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// Sixteen writers, some of which hold their transactions open, roll back or
// lose their connection, as the tail does. A reader that asks for what is
// above the last position loses what commits late.
func TestTailLosesNothing(t *testing.T) {
	const writers, each = 16, 40
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	admin := postgresDB(t, nil)
	store := opened(t, sqlstore.PostgreSQL(admin))
	var schema string
	if err := admin.QueryRow(`SELECT current_schema()`).Scan(&schema); err != nil {
		t.Fatal(err)
	}
	tails := opened(t, sqlstore.PostgreSQL(schemaDB(t, schema, url.Values{"application_name": {schema}})))

	w := &writing{T: t, db: admin, store: store, committed: map[int64]bool{}, busy: writers}
	w.changed = sync.NewCond(&w.mu)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	naive, told := map[int64]bool{}, map[int64]bool{}
	readers.Go(func() { readNaively(t, admin, naive, stop) })
	var cuts atomic.Int64
	readers.Go(func() { readByTail(t, tails, told, &cuts, stop) })
	var wait sync.WaitGroup
	for i := range writers {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		wait.Go(func() {
			defer w.leave()
			for j := range each {
				w.write(r, i, i < 4)
				if i == writers-1 && j%8 == 0 { // the tail's connection goes
					mustExec(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = current_schema() AND pid <> pg_backend_pid()`)
				}
			}
		})
	}
	wait.Wait()
	close(stop)
	readers.Wait()

	var lost []int64
	naivelyLost := 0
	for position := range w.committed {
		if !told[position] {
			lost = append(lost, position)
		}
		if !naive[position] {
			naivelyLost++
		}
	}
	slices.Sort(lost)
	t.Logf("%d committed; the naive reader lost %d; the tail was cut off %d times", len(w.committed), naivelyLost, cuts.Load())
	if len(lost) > 0 {
		t.Errorf("the tail lost %d of %d committed entries: %v", len(lost), len(w.committed), lost)
	}
	if naivelyLost == 0 || cuts.Load() == 0 {
		t.Error("the test proves nothing: the naive reader lost nothing, or the tail kept its connection")
	}
}

// writing is what the writers have in common.
type writing struct {
	*testing.T
	db    *sql.DB
	store *sqlstore.Store

	mu        sync.Mutex
	changed   *sync.Cond
	busy      int // writers that are not done
	holding   int
	count     int
	committed map[int64]bool
}

func (w *writing) note(position int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.committed[position] = true
	w.count++
	w.changed.Broadcast()
}

func (w *writing) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	w.changed.Broadcast()
}

// hold waits until others have committed n times, or cannot.
func (w *writing) hold(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding++
	defer func() { w.holding-- }()
	for until := w.count + n; w.count < until && w.busy > w.holding; {
		w.changed.Wait()
	}
}

// write ends one session, in one of the ways that transactions go.
func (w *writing) write(r *rand.Rand, writer int, holds bool) {
	ctx := context.Background()
	id := insert(w, w.store.Sessions(), session("subject "+string(rune('a'+writer)))).Session.ID
	if r.IntN(4) == 0 {
		ended, err := w.store.Sessions().End(ctx, endRequest(id))
		if err != nil {
			w.Error(err)
			return
		}
		w.note(ended.Revocations[0].Position)
		return
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		w.Error(err)
		return
	}
	defer func() { _ = tx.Rollback() }()
	in, err := w.store.InTx(tx)
	if err != nil {
		w.Error(err)
		return
	}
	ended, err := in.End(ctx, endRequest(id))
	if err != nil {
		w.Error(err)
		return
	}
	if holds {
		w.hold(1 + r.IntN(20))
	}
	switch r.IntN(6) {
	case 0:
		err = errors.Join(tx.Rollback(), errors.New("rolled back"))
	case 1:
		_, err = tx.Exec(`SELECT pg_terminate_backend(pg_backend_pid())`)
		if err == nil {
			w.Error("the connection survived its own end")
		}
	default:
		err = tx.Commit()
		if err != nil {
			w.Error(err)
		}
	}
	if err == nil {
		w.note(ended.Revocations[0].Position)
	}
}

// readNaively takes the highest position it saw for all that there is.
func readNaively(t *testing.T, db *sql.DB, told map[int64]bool, stop <-chan struct{}) {
	var last int64
	for stopped := false; ; {
		select {
		case <-stop:
			stopped = true
		default:
		}
		rows, err := db.Query(`SELECT id FROM counterfoil_feed WHERE id > $1 ORDER BY id`, last)
		if err != nil {
			t.Error(err)
			return
		}
		for rows.Next() {
			if err := rows.Scan(&last); err != nil {
				t.Error(err)
			}
			told[last] = true
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		if stopped {
			return
		}
	}
}

// readByTail opens another tail at the last Resolved when one ends.
func readByTail(t *testing.T, store *sqlstore.Store, told map[int64]bool, cuts *atomic.Int64, stop <-chan struct{}) {
	var resolved, want int64
	for {
		tail, err := store.Feed().Tail(context.Background(), resolved)
		if err != nil {
			cuts.Add(1)
			continue
		}
		for err == nil {
			var batch counterfoil.FeedBatch
			if batch, err = tail.Next(context.Background()); err != nil {
				break
			}
			for _, e := range batch.Entries {
				told[e.Position] = true
			}
			if resolved = batch.Resolved; want == 0 {
				select {
				case <-stop:
					head, err := store.Feed().Head(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					want = head.Position
				default:
				}
			}
			if want != 0 && resolved >= want {
				if err := tail.Close(); err != nil {
					t.Error(err)
				}
				return
			}
		}
		cuts.Add(1)
		_ = tail.Close() // its connection is gone
	}
}

// SQLite says that another connection has committed, in whichever process.
func TestTailSeesAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "two.db")
	here, there := opened(t, sqlstore.SQLite(sqliteDB(t, path))), opened(t, sqlstore.SQLite(sqliteDB(t, path)))
	f := follow(t, here, 0)
	for range 20 {
		s := insert(t, there.Sessions(), session("ann")).Session
		f.next()
		ended, err := there.Sessions().End(t.Context(), endRequest(s.ID))
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		f.next()
		f.wantTold("what another process committed", ended.Revocations[0])
		if f.last.ReadAt.Before(before) || f.last.Resolved != ended.Revocations[0].Position {
			t.Errorf("got %+v, read after %s", f.last, before)
		}
	}
}

// A pool that is too small for a connection of its own still has a tail.
func TestTailOnASmallPool(t *testing.T) {
	small := func(t *testing.T, db *sql.DB, most int, store *sqlstore.Store) {
		db.SetMaxOpenConns(most)
		opened(t, store)
		f := follow(t, store, 0)
		for range 3 {
			s := insert(t, store.Sessions(), session("ann")).Session
			ended, err := store.Sessions().End(t.Context(), endRequest(s.ID))
			if err != nil {
				t.Fatal(err)
			}
			f.next()
			f.wantTold("an entry", ended.Revocations[0])
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		db := sqliteDB(t, filepath.Join(t.TempDir(), "small.db"))
		small(t, db, 2, sqlstore.SQLite(db))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		db := postgresDB(t, nil)
		small(t, db, 1, sqlstore.PostgreSQL(db))
	})
}

// More than one page comes in several reads, of which only the last says when.
func TestTailInPages(t *testing.T) {
	run := func(t *testing.T, db *sql.DB, store *sqlstore.Store, many string) {
		opened(t, store)
		mustExec(t, db, many)
		f := follow(t, store, 0)
		first, err := f.tail.Next(t.Context())
		if err != nil || !first.ReadAt.IsZero() || len(first.Entries) != 1000 {
			t.Fatalf("the first page: %d entries, read at %s, %v", len(first.Entries), first.ReadAt, err)
		}
		f.next()
		if want := head(t, store).Position; len(f.told) != 2500-len(first.Entries) || want != 2500 {
			t.Errorf("%d entries after the first page, up to %d", len(f.told), want)
		}
		f.resolve(2500)
	}
	const values = ` (kind, ref, until) SELECT 's', 'x' || n, 4e12 FROM `
	t.Run("SQLite", func(t *testing.T) {
		db := sqliteDB(t, filepath.Join(t.TempDir(), "pages.db"))
		run(t, db, sqlstore.SQLite(db), `INSERT INTO counterfoil_feed (kind, ref, until)
			WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 2500) SELECT 's', 'x' || n, 4000000000000 FROM g`)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		db := postgresDB(t, nil)
		run(t, db, sqlstore.PostgreSQL(db), `INSERT INTO counterfoil_feed`+values+`generate_series(1, 2500) n`)
	})
}

// After a restore the log has another timeline: all of it is told anew.
func TestTailOfARestoredLog(t *testing.T) {
	run := func(t *testing.T, db *sql.DB, store *sqlstore.Store, restore ...string) {
		opened(t, store)
		f := follow(t, store, 0)
		s := insert(t, store.Sessions(), session("ann")).Session
		ended, err := store.Sessions().End(t.Context(), endRequest(s.ID))
		if err != nil {
			t.Fatal(err)
		}
		before := f.next()
		mustExec(t, db, restore...)
		clear(f.told)
		after := f.next()
		if after.Timeline <= before.Timeline {
			t.Errorf("timeline %d, then %d", before.Timeline, after.Timeline)
		}
		f.wantTold("what the restored log holds", ended.Revocations[0])
		s = insert(t, store.Sessions(), session("ann")).Session
		ended, err = store.Sessions().End(t.Context(), endRequest(s.ID))
		if err != nil {
			t.Fatal(err)
		}
		f.next()
		f.wantTold("what came after the restore", ended.Revocations[0])
		f.resolve(ended.Revocations[0].Position)

		g := follow(t, store, 1<<61) // a log that has lost its end
		g.next()
		g.wantTold("what is below the position of a lost log", ended.Revocations[0])
	}
	const timeline = `UPDATE counterfoil_meta SET timeline = timeline + 1`
	t.Run("SQLite", func(t *testing.T) {
		db := sqliteDB(t, filepath.Join(t.TempDir(), "restored.db"))
		run(t, db, sqlstore.SQLite(db), timeline, `UPDATE sqlite_sequence SET seq = 1800000000000000 WHERE name = 'counterfoil_feed'`)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		db := postgresDB(t, nil)
		run(t, db, sqlstore.PostgreSQL(db), timeline, `SELECT setval('counterfoil_feed_position', 1800000000000000)`)
	})
}
