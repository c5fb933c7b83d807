package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// held is a store with a transaction of the application that stays open while
// the test looks at what others see and wait for.
type held struct {
	*testing.T
	db    *sql.DB
	store *sqlstore.Store
	all   counterfoil.SessionStore // outside of the transaction
	tx    *sql.Tx
	in    counterfoil.SessionStore // inside
	pid   int
}

func openTx(t *testing.T) *held {
	h := &held{T: t, db: postgresDB(t, nil)}
	h.store = opened(t, sqlstore.PostgreSQL(h.db))
	h.all = h.store.Sessions()
	h.begin()
	return h
}

func (h *held) begin() {
	h.Helper()
	tx, err := h.db.BeginTx(context.Background(), nil)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = tx.Rollback() })
	if h.in, err = h.store.InTx(tx); err != nil {
		h.Fatal(err)
	}
	h.tx = tx
	if err := tx.QueryRow(`SELECT pg_backend_pid()`).Scan(&h.pid); err != nil {
		h.Fatal(err)
	}
}

// waiting starts fn and returns once it waits for a lock that the open
// transaction holds. The channel tells fn's error.
func (h *held) waiting(fn func() error) <-chan error {
	h.Helper()
	result := make(chan error, 1)
	go func() { result <- fn() }()
	for {
		select {
		case err := <-result:
			h.Fatalf("did not wait for the open transaction; its error: %v", err)
		default:
		}
		var blocked bool
		err := h.db.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))`, h.pid).Scan(&blocked)
		if err != nil {
			h.Fatal(err)
		}
		if blocked {
			return result
		}
	}
}

func (h *held) commit() {
	h.Helper()
	if err := h.tx.Commit(); err != nil {
		h.Fatal(err)
	}
}

func (h *held) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *held) subject(s counterfoil.SessionStore, id string) counterfoil.Subject {
	h.Helper()
	sub, err := s.Subject(h.Context(), id)
	h.must(err)
	return sub
}

func TestSignInDuringOpenSignOut(t *testing.T) {
	for _, end := range []string{"commit", "rollback"} {
		t.Run(end, func(t *testing.T) {
			h := openTx(t)
			insert(t, h.all, session("ann"))
			given := h.subject(h.all, "ann").Epoch
			_, err := h.in.Advance(t.Context(), signOut("ann"))
			h.must(err)
			withEpoch, without := session("ann"), session("ann")
			withEpoch.Epoch0 = given
			first := h.waiting(func() error { _, err := h.all.Insert(t.Context(), withEpoch); return err })
			second := make(chan error, 1)
			go func() { _, err := h.all.Insert(t.Context(), without); second <- err }()
			if end == "rollback" {
				h.must(h.tx.Rollback())
				h.must(<-first)
				h.must(<-second)
				return
			}
			h.commit()
			if err := <-first; !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
				t.Errorf("a sign-in with the epoch before: %v", err)
			}
			h.must(<-second)
			if got := status(t, h.all, without.ID); got != counterfoil.StatusActive {
				t.Errorf("a sign-in without an epoch, after: %s", got)
			}
		})
	}
}

func TestSignOutDuringOpenSignIn(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known subject %t", known), func(t *testing.T) {
			h := openTx(t)
			if known {
				insert(t, h.all, session("ann"))
			}
			add := session("ann")
			insert(t, h.in, add)
			result := h.waiting(func() error { _, err := h.all.Advance(t.Context(), signOut("ann")); return err })
			h.commit()
			h.must(<-result)
			if got := status(t, h.all, add.ID); got != counterfoil.StatusRevoked {
				t.Errorf("the session that was being started is %s", got)
			}
		})
	}
}

// The epoch that is told of a subject without a row must not reach the one
// that a transaction still open will set, however far the feed has gone since.
func TestFirstSignInDuringOpenFirstSignOut(t *testing.T) {
	t.Run("sign-out alone", func(t *testing.T) { firstSignIn(t, openTx(t)) })
	t.Run("after a sign-in", func(t *testing.T) {
		h := openTx(t)
		insert(t, h.in, session("ann"))
		firstSignIn(t, h)
	})
}

func firstSignIn(t *testing.T, h *held) {
	_, err := h.in.Advance(t.Context(), signOut("ann"))
	h.must(err)
	for range 20 {
		_, err := h.all.End(t.Context(), endRequest(insert(t, h.all, session("ben")).Session.ID))
		h.must(err)
	}
	given := h.subject(h.all, "ann").Epoch // and now the old password is checked
	h.commit()
	add := session("ann")
	add.Epoch0 = given
	if _, err := h.all.Insert(t.Context(), add); !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
		t.Errorf("a sign-in that began with epoch %d: %v", given, err)
	}
	if sub := h.subject(h.all, "ann"); sub.SignedOutBelow <= given {
		t.Errorf("signed out below %d, told before: %d", sub.SignedOutBelow, given)
	}
}

// Asking inside a long transaction must not keep others from signing out.
func TestSubjectInTxHoldsNoLock(t *testing.T) {
	h := openTx(t)
	if got, want := h.subject(h.in, "ann").Epoch, h.subject(h.all, "ann").Epoch; got != want {
		t.Errorf("epoch %d inside, %d outside", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := h.all.Advance(ctx, signOut("ann"))
	h.must(err)
}

// The sign-out that waits began before the session, and before the sign-out
// that ended it, could be seen. The session still keeps its end.
func TestSignOutDuringOpenSignOut(t *testing.T) {
	h := openTx(t)
	before := insert(t, h.all, session("ann")).Session
	between := insert(t, h.in, session("ann")).Session
	first, err := h.in.Advance(t.Context(), signOut("ann"))
	h.must(err)
	result := h.waiting(func() error {
		a := signOut("ann")
		a.End = counterfoil.End{Reason: counterfoil.Disabled, Actor: "operator"}
		_, err := h.all.Advance(t.Context(), a)
		return err
	})
	h.commit()
	h.must(<-result)
	for _, id := range []string{before.ID, between.ID} {
		snap, err := h.all.Snapshot(t.Context(), id)
		h.must(err)
		if end := snap.Session.End; end == nil || *end != *first.Subject.SignedOut {
			t.Errorf("the session ended by %+v, and shows %+v", first.Subject.SignedOut, end)
		}
	}
	if sub := h.subject(h.all, "ann"); sub.SignedOut.Reason != counterfoil.Disabled || sub.Epoch != first.Subject.Epoch+1 {
		t.Errorf("the second sign-out left %+v", sub)
	}
}

func TestEndDuringOpenDerivation(t *testing.T) {
	h := openTx(t)
	parent := insert(t, h.all, session("ann")).Session
	child := session("ben")
	child.ParentID = parent.ID
	insert(t, h.in, child)
	var ended counterfoil.Ended
	result := h.waiting(func() (err error) {
		ended, err = h.all.End(t.Context(), endRequest(parent.ID))
		return err
	})
	h.commit()
	h.must(<-result)
	if len(ended.Revocations) != 2 {
		t.Errorf("entries: %v", ended.Revocations)
	}
	if got := status(t, h.all, child.ID); got != counterfoil.StatusRevoked {
		t.Errorf("the session derived meanwhile is %s", got)
	}
}

func TestDerivationDuringOpenEnd(t *testing.T) {
	h := openTx(t)
	parent := insert(t, h.all, session("ann")).Session
	_, err := h.in.End(t.Context(), endRequest(parent.ID))
	h.must(err)
	child := session("ben")
	child.ParentID = parent.ID
	result := h.waiting(func() error { _, err := h.all.Insert(t.Context(), child); return err })
	h.commit()
	if err := <-result; !errors.Is(err, counterfoil.ErrSessionRevoked) {
		t.Errorf("got %v", err)
	}
}

func TestUpdateDuringOpenSignOut(t *testing.T) {
	h := openTx(t)
	s := insert(t, h.all, session("ann")).Session
	_, err := h.in.Advance(t.Context(), signOut("ann"))
	h.must(err)
	saw := []bool{}
	result := h.waiting(func() error {
		_, _, err := h.all.Update(t.Context(), s.ID, time.Minute, func(s *counterfoil.Session) (bool, error) {
			saw = append(saw, s.End != nil)
			s.Roles = []string{"admin"}
			return true, nil
		})
		return err
	})
	h.commit()
	h.must(<-result)
	if len(saw) != 2 || saw[0] || !saw[1] {
		t.Errorf("fn saw the session ended: %v, want first not, then yes", saw)
	}
}

// A reader of the feed forgets a gap once every transaction is over that had
// a number when the gap was seen. That holds only if each has its number
// before it draws a position.
func TestPositionsAreDrawnWithATransactionNumber(t *testing.T) {
	h := openTx(t)
	mustExec(t, h.db,
		`CREATE FUNCTION checked_position() RETURNS bigint LANGUAGE plpgsql AS $$
		BEGIN
			IF pg_current_xact_id_if_assigned() IS NULL THEN RAISE 'a position was drawn before the transaction had a number'; END IF;
			RETURN nextval('counterfoil_feed_position');
		END $$`,
		`ALTER TABLE counterfoil_feed ALTER id SET DEFAULT checked_position()`)
	a, b := insert(t, h.all, session("ann")).Session, insert(t, h.all, session("ann")).Session
	child := session("ben")
	child.ParentID = a.ID
	insert(t, h.all, child)
	do := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.all.End(t.Context(), endRequest(a.ID))
	do("End of one with children", err)
	_, _, err = h.all.Update(t.Context(), b.ID, time.Minute, func(*counterfoil.Session) (bool, error) { return true, nil })
	do("Update", err)
	keep := signOut("ann")
	keep.Keep = &counterfoil.Keep{ID: b.ID}
	_, err = h.all.Advance(t.Context(), keep)
	do("Advance", err)
	_, err = h.all.Advance(t.Context(), signOut("nobody yet"))
	do("Advance of a new subject", err)
	_, err = h.all.End(t.Context(), endRequest(b.ID))
	do("End", err)
	h.must(h.store.Users().Create(t.Context(), directory.User{ID: "u1", Email: "a@b.example", EmailKey: "a@b.example"}))
	_, _, err = h.store.Users().Update(t.Context(), "u1", func(*directory.User) (*counterfoil.Advance, error) {
		a := signOut("u1")
		return &a, nil
	})
	do("Users.Update", err)
	_, err = h.store.Users().Delete(t.Context(), "u1", signOut("u1"))
	do("Users.Delete", err)
	_, _, err = h.store.Catalog().UpdateKeys(t.Context(), time.Minute, func(r *counterfoil.KeyRing) error {
		r.Keys = append(r.Keys, counterfoil.KeyRecord{ID: "k", Algorithm: "ES256", State: counterfoil.KeyRevoked, Public: []byte{1}})
		return nil
	})
	do("UpdateKeys", err)
	entries, err := h.store.Feed().Read(t.Context(), 0, 100)
	if err != nil || len(entries) != 9 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestPostgreSQLSettingsRefused(t *testing.T) {
	db := postgresDB(t, map[string][]string{"synchronous_commit": {"off"}})
	if err := sqlstore.PostgreSQL(db).Open(t.Context()); err == nil {
		t.Error("synchronous_commit off was accepted")
	}
	opened(t, sqlstore.PostgreSQL(db, sqlstore.RelaxedDurability()))
}

// Without a clock of the caller, the server's decides.
func TestServerClock(t *testing.T) {
	store := opened(t, sqlstore.PostgreSQL(postgresDB(t, nil)))
	from := time.Now().Add(-time.Minute)
	now, err := store.Now(t.Context())
	if err != nil || now.Before(from) || now.After(from.Add(2*time.Minute)) || now.Location() != time.UTC {
		t.Errorf("Now: %v, %v", now, err)
	}
	snap := insert(t, store.Sessions(), session("ann"))
	ended, err := store.Sessions().End(t.Context(), endRequest(snap.Session.ID))
	if err != nil || snap.Now.Before(now) || ended.Session.End.At.Before(snap.Now) {
		t.Errorf("%v, then %v, then %+v; %v", now, snap.Now, ended.Session.End, err)
	}
	if until := ended.Revocations[0].Until; !until.Equal(ended.Session.End.At.Add(time.Minute)) {
		t.Errorf("until %v", until)
	}
}

// A migration that has to wait for somebody's long transaction does not make
// everybody else wait with it.
func TestAMigrationStandsInNobodysWay(t *testing.T) {
	db := postgresDB(t, nil)
	first, err := fs.ReadFile(sqlstore.PostgreSQLMigrations(), "0001_first.sql")
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, string(first))
	long, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Rollback() // nothing is left of it after the commit below
	mustExec(t, long, `SELECT FROM counterfoil_sessions`)
	migrated := make(chan error, 1)
	go func() { migrated <- sqlstore.PostgreSQL(db).Open(context.Background()) }()
	blocked := func() (n int) {
		err := db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for blocked() == 0 {
		select {
		case err := <-migrated:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := db.ExecContext(ctx, `SELECT FROM counterfoil_sessions`); err != nil {
		t.Fatalf("a reader beside a migration that waits: %v", err)
	}
	if err := long.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Errorf("once the way is free: %v", err)
	}
}
