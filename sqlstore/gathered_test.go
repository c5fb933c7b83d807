package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// together holds what writes sessions until all calls wait for one statement.
func together(t *testing.T, store *sqlstore.Store, hold func() (letGo func()), fill func(), calls ...func()) {
	t.Helper()
	letGo := sync.OnceFunc(hold())
	defer letGo() // if the test gives up
	var all sync.WaitGroup
	for i := range store.Lanes() {
		all.Go(fill)
		until(t, "the lane is busy", func() error {
			if n := store.Busy(); n != i+1 || store.Waiting() > 0 {
				return fmt.Errorf("%d are, want %d", n, i+1)
			}
			return nil
		})
	}
	for _, call := range calls {
		all.Go(call)
	}
	until(t, "all calls wait", func() error {
		if n := store.Waiting(); n != len(calls) {
			return fmt.Errorf("%d of %d wait", n, len(calls))
		}
		return nil
	})
	letGo()
	all.Wait()
}

func TestGatheredWrites(t *testing.T) {
	db := postgresDB(t, nil)
	store := opened(t, sqlstore.PostgreSQL(db))
	sessions := store.Sessions()
	held := func() func() {
		tx, err := db.Begin()
		must(t, err)
		_, err = tx.Exec(`LOCK TABLE counterfoil_sessions IN SHARE ROW EXCLUSIVE MODE`)
		must(t, err)
		return func() { must(t, tx.Rollback()) }
	}
	// transactions counts those that wrote the rows of these sessions last.
	transactions := func(sids []string) (n int) {
		must(t, db.QueryRow(`SELECT count(DISTINCT xmin::text) FROM counterfoil_sessions WHERE sid = ANY ($1)`, sids).Scan(&n))
		return n
	}
	subject := func(i int) string { return fmt.Sprintf("s%d", i) }
	filler := func() {
		if _, err := sessions.Insert(context.WithoutCancel(t.Context()), session("filler")); err != nil {
			t.Error(err)
		}
	}
	filler()
	for i := range 8 {
		insert(t, sessions, session(subject(i)))
	}
	insert(t, sessions, session("disabled"))
	disable := signOut("disabled")
	disable.Rights = &counterfoil.Rights{Disabled: true}
	insert(t, sessions, session("signed out"))
	for _, a := range []counterfoil.Advance{disable, signOut("signed out")} {
		_, err := sessions.Advance(t.Context(), a)
		must(t, err)
	}

	var added []counterfoil.Session
	var sids []string
	adding := func(add counterfoil.Session, want error) func() {
		return func() {
			snap, err := sessions.Insert(context.WithoutCancel(t.Context()), add)
			if !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", add.Subject, err, want)
			} else if err == nil && (snap.Session.ID != add.ID || snap.Session.Subject != add.Subject || snap.Subject.ID != add.Subject ||
				snap.Session.Epoch0 != snap.Subject.Epoch || snap.KeyVersion == 0 && snap.Now.IsZero()) {
				t.Errorf("%s: got %+v", add.Subject, snap)
			}
		}
	}
	good := func() (calls []func()) {
		added, sids = nil, nil
		for i := range 8 {
			add := session(subject(i))
			added, sids, calls = append(added, add), append(sids, add.ID), append(calls, adding(add, nil))
		}
		return calls
	}
	check := func(want int) {
		t.Helper()
		if n := transactions(sids); n != want {
			t.Errorf("%d sessions were written by %d transactions, want %d", len(sids), n, want)
		}
		for _, add := range added {
			snap, err := sessions.Snapshot(t.Context(), add.ID)
			must(t, err)
			if got := snap.Session; got.SecretHash != add.SecretHash || got.Subject != add.Subject || got.Device != add.Device || got.ClientID != add.ClientID {
				t.Errorf("read %+v, added %+v", got, add)
			}
		}
	}

	t.Run("sign-ins", func(t *testing.T) {
		old := session("signed out")
		old.Epoch0 = 1
		together(t, store, held, filler, append(good(), adding(session("disabled"), counterfoil.ErrSubjectDisabled),
			adding(old, counterfoil.ErrSignedOutMeanwhile), adding(session("new"), nil), adding(session("signed out"), nil))...)
		check(1)
	})

	t.Run("one that PostgreSQL refuses", func(t *testing.T) {
		bad := session(subject(0))
		bad.Device.UserAgent = "a\x00b"
		together(t, store, held, filler, append(good(), func() {
			if _, err := sessions.Insert(context.WithoutCancel(t.Context()), bad); err == nil {
				t.Error("a text with a zero byte was added")
			}
		})...)
		check(len(sids))
	})

	t.Run("ends", func(t *testing.T) {
		for _, call := range good() {
			call()
		}
		parent := insert(t, sessions, session(subject(1))).Session
		child := session(subject(1))
		child.ParentID = parent.ID
		insert(t, sessions, child)
		done := insert(t, sessions, session(subject(2))).Session
		_, err := sessions.End(t.Context(), endRequest(done.ID))
		must(t, err)
		var mu sync.Mutex
		changed := map[string]int{}
		positions := map[int64]bool{}
		ending := func(q counterfoil.EndRequest, want error) func() {
			return func() {
				ended, err := sessions.End(context.WithoutCancel(t.Context()), q)
				mu.Lock()
				defer mu.Unlock()
				if !errors.Is(err, want) {
					t.Errorf("%s: got %v, want %v", q.ID, err, want)
				}
				if err == nil && (ended.Session.ID != q.ID || ended.Session.End == nil || ended.Session.End.Reason != q.End.Reason) {
					t.Errorf("%s: got %+v", q.ID, ended)
				}
				if ended.Changed {
					changed[q.ID]++
				}
				for _, entry := range ended.Revocations {
					if positions[entry.Position] || entry.Until.Before(time.Now()) {
						t.Errorf("%s: entry %+v", q.ID, entry)
					}
					positions[entry.Position] = true
				}
			}
		}
		var calls []func()
		for _, sid := range sids {
			calls = append(calls, ending(endRequest(sid), nil))
		}
		foreign := endRequest(insert(t, sessions, session(subject(3))).Session.ID)
		foreign.Subject = "somebody else"
		calls = append(calls, ending(endRequest(sids[0]), nil), ending(endRequest(sids[0]), nil), ending(foreign, counterfoil.ErrNotFound),
			ending(endRequest(parent.ID), nil), ending(endRequest(done.ID), nil), ending(endRequest(session("nobody").ID), counterfoil.ErrNotFound))
		fillers := make(chan counterfoil.Session, store.Lanes())
		for range store.Lanes() {
			fillers <- insert(t, sessions, session("filler")).Session
		}
		filler := func() { ending(endRequest((<-fillers).ID), nil)() }
		together(t, store, held, filler, calls...)
		if n := transactions(append(sids, parent.ID)); n != 2 {
			t.Errorf("ended by %d transactions, want one for the family and one for all others", n)
		}
		for _, sid := range append(sids, parent.ID) {
			if changed[sid] != 1 {
				t.Errorf("%s was ended %d times", sid, changed[sid])
			}
		}
		if want := store.Lanes() + len(sids) + 2; len(positions) != want { // the family are two
			t.Errorf("%d entries in the log, want %d", len(positions), want)
		}
		if changed[done.ID] != 0 {
			t.Error("ended what had ended")
		}
	})
}

// What ends where the sessions are elsewhere shares statements likewise.
func TestGatheredJournal(t *testing.T) {
	db := postgresDB(t, nil)
	store := sqlstore.PostgreSQL(db)
	journal := store.Journal(func(context.Context, string) (sqlstore.Kept, error) { return sqlstore.Kept{}, nil })
	opened(t, store)
	member := func(i int) sqlstore.Member {
		subject := fmt.Sprintf("s%d", i)
		sub, err := journal.Ensure(t.Context(), subject, false)
		must(t, err)
		return sqlstore.Member{ID: session(subject).ID, Subject: subject, Epoch0: sub.Epoch}
	}
	var mu sync.Mutex
	changed, positions, numbers := map[string]int{}, map[int64]bool{}, map[int64]bool{}
	end := func(m sqlstore.Member, reason counterfoil.Reason) func() {
		return func() {
			done, err := journal.End(context.WithoutCancel(t.Context()), []sqlstore.Member{m}, true, counterfoil.End{Reason: reason, Actor: "user"}, time.Minute)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%+v: %v", m, err)
				return
			}
			if !done.Changed {
				return
			}
			changed[m.ID]++
			if len(done.Facts) != 1 || done.Facts[0].Ref != m.ID || done.Facts[0].End.Reason != reason || done.Facts[0].End.At.IsZero() || numbers[done.Facts[0].No] ||
				len(done.Revocations) != 1 || done.Revocations[0].ID != m.ID || positions[done.Revocations[0].Position] {
				t.Errorf("%+v: %+v", m, done)
				return
			}
			positions[done.Revocations[0].Position], numbers[done.Facts[0].No] = true, true
		}
	}
	var members []sqlstore.Member
	var calls []func()
	for i := range 12 {
		m := member(i % 4)
		members = append(members, m)
		calls = append(calls, end(m, counterfoil.SignedOut))
	}
	signedOut := member(20)
	_, _, err := journal.Advance(t.Context(), signOut("s20"), sqlstore.Kept{})
	must(t, err)
	calls = append(calls, end(members[0], counterfoil.SignedOut), end(signedOut, counterfoil.SignedOut))
	filler := func() { end(member(30), counterfoil.SignedOut)() }
	together(t, store, func() func() {
		tx, err := db.Begin()
		must(t, err)
		_, err = tx.Exec(`LOCK TABLE counterfoil_journal IN SHARE ROW EXCLUSIVE MODE`)
		must(t, err)
		return func() { must(t, tx.Rollback()) }
	}, filler, calls...)
	var transactions int
	ids := make([]string, len(members))
	for i, m := range members {
		if ids[i] = m.ID; changed[m.ID] != 1 {
			t.Errorf("%+v was ended %d times", m, changed[m.ID])
		}
	}
	must(t, db.QueryRow(`SELECT count(DISTINCT xmin::text) FROM counterfoil_journal WHERE ref = ANY ($1)`, ids).Scan(&transactions))
	if transactions != 1 {
		t.Errorf("%d transactions, want one", transactions)
	}
	if changed[signedOut.ID] != 0 {
		t.Error("ended what had been signed out")
	}
	facts, err := journal.Untold(t.Context(), 0, 100)
	must(t, err)
	for _, f := range facts {
		if f.End != nil && (f.End.At.IsZero() || f.End.Reason != counterfoil.SignedOut || f.End.Actor != "user") {
			t.Errorf("the journal tells %+v", f)
		}
	}
}

// What the rows of a statement say counts for nothing when its commit fails.
func TestGatheredCommitFails(t *testing.T) {
	for _, how := range []string{"RAISE EXCEPTION 'no'", "IF nextval('once') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF"} {
		t.Run(how, func(t *testing.T) {
			db := postgresDB(t, nil)
			store := opened(t, sqlstore.PostgreSQL(db))
			sessions := store.Sessions()
			ann := insert(t, sessions, session("ann")).Session
			mustExec(t, db, `CREATE SEQUENCE once`)
			mustExec(t, db, `CREATE FUNCTION nope() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN `+how+`; RETURN NULL; END $$`)
			mustExec(t, db, `CREATE CONSTRAINT TRIGGER nope AFTER INSERT OR UPDATE ON counterfoil_sessions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE PROCEDURE nope()`)
			ended, err := sessions.End(t.Context(), endRequest(ann.ID))
			if is := status(t, sessions, ann.ID); ended.Changed != (is == counterfoil.StatusRevoked) || (err == nil) != ended.Changed {
				t.Errorf("End said %+v, %v; the session is %v", ended, err, is)
			}
			if again := how[0] == 'I'; again && err != nil {
				t.Errorf("an end whose connection was lost was not repeated: %v", err)
			}
			if again := how[0] == 'I'; again {
				mustExec(t, db, `SELECT setval('once', 1, false)`)
			}
			add := session("ann")
			_, err = sessions.Insert(t.Context(), add)
			if _, found := sessions.Snapshot(t.Context(), add.ID); (err == nil) != (found == nil) {
				t.Errorf("Insert said %v, reading it %v", err, found)
			}
		})
	}
}

// Who is held up by somebody's long transaction holds up nobody else.
func TestGatheredWritesPassLocks(t *testing.T) {
	name := fmt.Sprintf("passing_locks_%016x", rand.Uint64())
	db := postgresDB(t, url.Values{"application_name": {name}})
	store := opened(t, sqlstore.PostgreSQL(db))
	sessions := store.Sessions()
	insert(t, sessions, session("bob"))
	old := insert(t, sessions, session("ann"))
	ended := insert(t, sessions, session("bob")).Session
	tx, err := db.Begin()
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	in, err := store.InTx(tx)
	must(t, err)
	_, err = in.Advance(t.Context(), signOut("ann"))
	must(t, err)
	_, err = in.End(t.Context(), endRequest(ended.ID))
	must(t, err)

	late := make(chan error, 100)
	stale := session("ann")
	stale.Epoch0 = old.Subject.Epoch // of a password that was checked before the sign-out
	waiting := 3 * store.Lanes()
	for i := range waiting {
		go func() {
			if i%2 == 0 {
				add := stale
				add.ID = session("ann").ID
				_, err := sessions.Insert(context.WithoutCancel(t.Context()), add)
				if !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
					err = fmt.Errorf("sign-in during a sign-out: %w", errors.Join(err, errors.New("want ErrSignedOutMeanwhile")))
				} else {
					err = nil
				}
				late <- err
				return
			}
			e, err := sessions.End(context.WithoutCancel(t.Context()), endRequest(ended.ID))
			if err == nil && e.Changed {
				err = errors.New("ended twice")
			}
			late <- err
		}()
	}
	until(t, "they wait for the transaction", func() error {
		var n int
		must(t, db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1`, name).Scan(&n))
		if n < waiting {
			return fmt.Errorf("%d of %d", n, waiting)
		}
		return nil
	})
	for range 5 { // all others go on
		s := insert(t, sessions, session("bob")).Session
		if e, err := sessions.End(t.Context(), endRequest(s.ID)); err != nil || !e.Changed {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	must(t, tx.Commit())
	for range waiting {
		if err := <-late; err != nil {
			t.Error(err)
		}
	}
}
