package storetest

import (
	"database/sql"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

// inTx starts a transaction that is rolled back at the end of the test unless
// it was committed.
func (e *env) inTx() (*sql.Tx, counterfoil.SessionStore) {
	e.t.Helper()
	tx, err := e.BeginTx(e.ctx)
	e.must("BeginTx", err)
	e.t.Cleanup(func() { _ = tx.Rollback() }) // an error says that it was committed
	sessions, err := e.Store.InTx(tx)
	e.must("InTx", err)
	return tx, sessions
}

var noTransactionDuties = []duty{
	{"InTx without SQL is ErrNoTransactions", func(t *testing.T, e *env) {
		if e.BeginTx != nil {
			t.Skip("the store speaks SQL")
		}
		_, err := e.Store.InTx(nil)
		e.wantErr("InTx", err, counterfoil.ErrNoTransactions)
	}},
}

// changeAll does one thing of each kind to the sessions of ann.
func changeAll(t *testing.T, e *env, in counterfoil.SessionStore, ending, kept, added counterfoil.Session) (all []counterfoil.Revocation) {
	t.Helper()
	ended, err := in.End(e.ctx, endRequest(ending.ID))
	e.must("End", err)
	all = append(all, ended.Revocations...)
	if e.Elsewhere {
		e.refusesSessions(in, added)
		done, err := in.Advance(e.ctx, rightsOnly("ann"))
		e.must("Advance", err)
		all = append(all, done.Revocation)
	} else {
		_, stale, err := in.Update(e.ctx, kept.ID, retain, func(s *counterfoil.Session) (bool, error) {
			s.Methods = []string{"otp"}
			return true, nil
		})
		e.must("Update", err)
		all = append(all, stale...)
	}
	a := others("ann", kept.ID)
	a.Rights = &counterfoil.Rights{Roles: []string{"admin"}}
	if e.Elsewhere {
		a.Keep.Methods = []string{"otp"}
	}
	done, err := in.Advance(e.ctx, a)
	e.must("Advance", err)
	if !e.Elsewhere {
		_, err = in.Insert(e.ctx, added)
		e.must("Insert", err)
		e.must("Touch", in.Touch(e.ctx, []counterfoil.Touch{{ID: kept.ID, At: kept.LastActiveAt.Add(time.Minute)}}))
	}
	return append(all, done.Revocation)
}

// refusesSessions wants what a transaction cannot undo to be refused.
func (e *env) refusesSessions(in counterfoil.SessionStore, s counterfoil.Session) {
	e.t.Helper()
	_, err := in.Insert(e.ctx, s)
	e.wantErr("Insert", err, counterfoil.ErrNoTransactions)
	_, _, err = in.Update(e.ctx, s.ID, retain, func(*counterfoil.Session) (bool, error) { return true, nil })
	e.wantErr("Update", err, counterfoil.ErrNoTransactions)
	e.wantErr("Touch", in.Touch(e.ctx, []counterfoil.Touch{{ID: s.ID, At: e.clock.now()}}), counterfoil.ErrNoTransactions)
	_, err = in.Purge(e.ctx, e.clock.now(), 1)
	e.wantErr("Purge", err, counterfoil.ErrNoTransactions)
}

// commit ends a transaction as [counterfoil.Tx] does.
func (e *env) commit(tx *sql.Tx, reported ...counterfoil.Revocation) {
	e.t.Helper()
	e.must("Commit", tx.Commit())
	e.must("Committed", e.Store.Committed(e.ctx, reported...))
}

// wantUnchanged wants ann's sessions and subject as they were, from outside.
func (e *env) wantUnchanged(what string, before counterfoil.Subject, ending, kept, added counterfoil.Session) {
	e.t.Helper()
	sameSession(e.t, what+": the ended one", e.snapshot(ending.ID).Session, ending)
	sameSession(e.t, what+": the kept one", e.snapshot(kept.ID).Session, kept)
	sameSubject(e.t, what+": Subject", e.subject("ann"), before)
	_, err := e.sessions.Snapshot(e.ctx, added.ID)
	e.wantErr(what+": Snapshot of the new one", err, counterfoil.ErrNotFound)
	e.wantLogged(0, nil)
}

var transactionDuties = []duty{
	{"A rolled back transaction leaves neither change nor entry", func(t *testing.T, e *env) {
		ending, kept, added := e.start("ann"), e.start("ann"), e.session("ann")
		before := e.subject("ann")
		tx, in := e.inTx()
		changeAll(t, e, in, ending, kept, added)
		e.must("Rollback", tx.Rollback())
		e.wantUnchanged("after the rollback", before, ending, kept, added)
		e.wantListed("of all", counterfoil.ListQuery{Limit: 10}, ending, kept)
	}},
	{"Nothing shows before commit, all of it after", func(t *testing.T, e *env) {
		ending, kept, added := e.start("ann"), e.start("ann"), e.session("ann")
		before := e.subject("ann")
		tx, in := e.inTx()
		all := changeAll(t, e, in, ending, kept, added)
		e.wantUnchanged("before commit", before, ending, kept, added)
		e.commit(tx, all...)
		e.wantLogged(0, all)
		e.wantRevoked(ending.ID, "it was ended in the transaction")
		e.wantActive(kept.ID, "it was kept in the transaction")
		if !e.Elsewhere {
			e.wantActive(added.ID, "it started in the transaction")
		}
		sub := e.subject("ann")
		if sub.Epoch != before.Epoch+2 || sub.SignedOutBelow != sub.Epoch {
			t.Errorf("got epoch %d, signed out below %d; want %d for both", sub.Epoch, sub.SignedOutBelow, before.Epoch+2)
		}
		sameRights(t, "Rights", sub.Rights, counterfoil.Rights{Roles: []string{"admin"}})
		sameList(t, "Methods", e.snapshot(kept.ID).Session.Methods, []string{"otp"})
	}},
	{"A transaction sees what it did", func(t *testing.T, e *env) {
		ending, kept, added := e.start("ann"), e.start("ann"), e.session("ann")
		_, in := e.inTx()
		changeAll(t, e, in, ending, kept, added)
		statuses := map[string]counterfoil.Status{ending.ID: counterfoil.StatusRevoked, kept.ID: counterfoil.StatusActive}
		if !e.Elsewhere {
			statuses[added.ID] = counterfoil.StatusActive
		}
		for id, want := range statuses {
			snap, err := in.Snapshot(e.ctx, id)
			e.must("Snapshot", err)
			if got := snap.Session.Status(snap.Now); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		sub, err := in.Subject(e.ctx, "ann")
		e.must("Subject", err)
		sameRights(t, "Rights", sub.Rights, counterfoil.Rights{Roles: []string{"admin"}})
		page, _, err := in.List(e.ctx, counterfoil.ListQuery{Subject: "ann", ActiveAt: e.clock.now(), Limit: 10})
		e.must("List", err)
		if len(page) != len(statuses)-1 {
			t.Errorf("got %d active sessions, want the kept one, and the new one if any", len(page))
		}
	}},
	{"A new subject in a transaction that is rolled back gets no row", func(t *testing.T, e *env) {
		tx, in := e.inTx()
		if !e.Elsewhere {
			_, err := in.Insert(e.ctx, e.session("new"))
			e.must("Insert", err)
		}
		_, err := in.Advance(e.ctx, signOut("new"))
		e.must("Advance", err)
		e.must("Rollback", tx.Rollback())
		reported := e.change()
		e.wantFresh(e.subject("new").Epoch, reported)
		e.wantFresh(e.start("new").Epoch0, reported)
	}},
	{"Positions rise past a transaction that was rolled back", func(t *testing.T, e *env) {
		first := e.change()
		s := e.start("ann")
		tx, in := e.inTx()
		_, err := in.End(e.ctx, endRequest(s.ID))
		e.must("End", err)
		e.must("Rollback", tx.Rollback())
		e.wantLogged(0, append(first, e.change()...))
	}},
	{"A tail tells of a transaction when it is committed", func(t *testing.T, e *env) {
		f := e.follow(0)
		for _, commit := range []bool{true, false, true} {
			ending, kept := e.start("ann"), e.start("ann")
			tx, in := e.inTx()
			all := changeAll(t, e, in, ending, kept, e.session("ann"))
			told := len(f.told)
			f.next()
			if len(f.told) != told {
				t.Errorf("%d entries were told before commit", len(f.told)-told)
			}
			if f.last.Resolved >= all[0].Position {
				t.Errorf("resolved up to %d before the commit of %d", f.last.Resolved, all[0].Position)
			}
			if !commit {
				e.must("Rollback", tx.Rollback())
				continue
			}
			e.commit(tx, all...)
			f.next()
			f.wantTold(all)
		}
		f.resolve()
		e.wantLogged(0, slices.Collect(maps.Values(f.told)))
	}},
	{"An error that is an answer leaves the transaction usable", func(t *testing.T, e *env) {
		s := e.start("ann")
		old := e.session("ann")
		old.Epoch0 = s.Epoch0
		e.advance(signOut("ann"))
		after := e.head().Position
		next := e.start("ann")
		tx, in := e.inTx()
		_, err := in.Snapshot(e.ctx, opaque.NewID())
		e.wantErr("Snapshot", err, counterfoil.ErrNotFound)
		_, err = in.End(e.ctx, endRequest(opaque.NewID()))
		e.wantErr("End", err, counterfoil.ErrNotFound)
		r := endRequest(next.ID)
		r.Subject = "ben"
		_, err = in.End(e.ctx, r)
		e.wantErr("End for another subject", err, counterfoil.ErrNotFound)
		if e.Elsewhere {
			e.refusesSessions(in, old)
		} else {
			_, err = in.Insert(e.ctx, old)
			e.wantErr("Insert", err, counterfoil.ErrSignedOutMeanwhile)
			mine := errors.New("mine")
			_, _, err = in.Update(e.ctx, next.ID, retain, func(row *counterfoil.Session) (bool, error) {
				row.Methods = nil
				return true, mine
			})
			e.wantErr("Update", err, mine)
		}
		ended, err := in.End(e.ctx, endRequest(next.ID))
		e.must("End after refusals", err)
		e.commit(tx, ended.Revocations...)
		want := next
		want.End = ended.Session.End
		sameSession(t, "Snapshot", e.snapshot(next.ID).Session, want)
		e.wantLogged(after, ended.Revocations)
	}},
	{"End in a transaction cascades", func(t *testing.T, e *env) {
		root := e.start("ann")
		leaf := e.insert(e.child(e.insert(e.child(root, "ben")), "cleo"))
		tx, in := e.inTx()
		ended, err := in.End(e.ctx, endRequest(root.ID))
		e.must("End", err)
		e.wantActive(leaf.ID, "the transaction is not committed")
		e.commit(tx, ended.Revocations...)
		e.wantRevoked(leaf.ID, "derived from a session that ended")
		e.wantLogged(0, ended.Revocations)
	}},
	{"Close leaves the caller's database open", func(t *testing.T, e *env) {
		e.must("Close", e.Store.Close())
		tx, err := e.BeginTx(e.ctx)
		e.must("BeginTx after Close", err)
		e.must("Rollback", tx.Rollback())
	}},
}
