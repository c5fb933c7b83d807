package storetest

import (
	"crypto/rand"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// binding makes one to a random key; stores do not look at it.
func (e *env) binding() *counterfoil.Binding {
	b := &counterfoil.Binding{RegisteredAt: e.clock.now()}
	b.Key[0] = 4
	rand.Read(b.Key[1:])
	return b
}

// bind binds a session that has started.
func (e *env) bind(s counterfoil.Session) counterfoil.Session {
	e.t.Helper()
	bound, _ := e.update(s.ID, false, func(row *counterfoil.Session) { row.Binding = e.binding() })
	return bound
}

var bindingDuties = []duty{
	{"A session is bound, counts its proofs and is unbound by Update", func(t *testing.T, e *env) {
		s := e.start("ann")
		if s.Binding != nil {
			t.Errorf("a new session is bound: %+v", s.Binding)
		}
		want := s
		want.Binding = e.binding()
		want.Binding.RegisteredAt = time.Date(2031, 5, 4, 3, 2, 1, 987_654_321, time.FixedZone("far", 19800))
		got, _ := e.update(s.ID, false, func(row *counterfoil.Session) {
			b := *want.Binding
			row.Binding = &b
		})
		sameSession(t, "returned", got, want)
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, want)
		for range 2 {
			want.Binding.Proofs += 1 << 40
			e.clock.move(time.Minute)
			e.update(s.ID, false, func(row *counterfoil.Session) { row.Binding.Proofs += 1 << 40 })
			sameSession(t, "after a proof", e.snapshot(s.ID).Session, want)
		}
		list, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Subject: "ann", Limit: 10})
		e.must("List", err)
		if len(list) != 1 {
			t.Fatalf("got %d sessions, want one", len(list))
		}
		sameSession(t, "List", list[0], want)
		want.Binding = nil
		got, _ = e.update(s.ID, false, func(row *counterfoil.Session) { row.Binding = nil })
		sameSession(t, "unbound", got, want)
		sameSession(t, "Snapshot, unbound", e.snapshot(s.ID).Session, want)
	}},
	{"Insert keeps a binding, and each session has its own", func(t *testing.T, e *env) {
		given, other := e.session("ann"), e.start("ann")
		given.Binding = e.binding()
		given.Binding.Proofs = 7
		given.Epoch0 = e.insert(given).Epoch0
		sameSession(t, "Snapshot", e.snapshot(given.ID).Session, given)
		sameSession(t, "the other session", e.snapshot(other.ID).Session, other)
	}},
	{"A binding shares no memory with callers", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.Binding = e.binding()
		want := given
		kept := *given.Binding
		want.Binding = &kept
		inserted := e.insert(given)
		want.Epoch0 = inserted.Epoch0
		read := e.snapshot(given.ID).Session
		updated, _ := e.update(given.ID, false, func(row *counterfoil.Session) { row.Binding = given.Binding })
		for _, s := range []counterfoil.Session{given, inserted, read, updated} {
			if s.Binding == nil {
				t.Fatal("a binding was forgotten")
			}
			s.Binding.Proofs, s.Binding.Key[5] = 99, s.Binding.Key[5]+1
			sameSession(t, "after a caller changed what it gave or got", e.snapshot(given.ID).Session, want)
		}
	}},
	{"A refused Update leaves the binding", func(t *testing.T, e *env) {
		s := e.bind(e.start("ann"))
		mine := errors.New("mine")
		_, _, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
			row.Binding.Proofs++
			row.Binding = nil
			return false, mine
		})
		e.wantErr("Update", err, mine)
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, s)
	}},
	{"A binding outlives use, another secret, Keep and the end", func(t *testing.T, e *env) {
		s := e.bind(e.start("ann"))
		want := s.Binding
		e.touch(counterfoil.Touch{ID: s.ID, At: e.clock.now().Add(time.Minute)})
		sameBinding(t, "after Touch", e.snapshot(s.ID).Session.Binding, want)
		a := others("ann", s.ID)
		a.Keep.SecretHash, a.Keep.AuthTime, a.Keep.Methods = randomHash(), e.clock.now(), []string{"pwd"}
		done := e.advance(a)
		if done.Kept == nil {
			t.Fatal("not kept")
		}
		sameBinding(t, "Kept", done.Kept.Binding, want)
		sameBinding(t, "after Keep", e.snapshot(s.ID).Session.Binding, want)
		ended := e.end(s.ID)
		sameBinding(t, "End", ended.Session.Binding, want)
		sameBinding(t, "after End", e.snapshot(s.ID).Session.Binding, want)
	}},
	{"Of proofs of one challenge at once, one counts (SEC-71)", func(t *testing.T, e *env) {
		s := e.bind(e.start("ann"))
		late := errors.New("late")
		for round := range e.Rounds {
			var counted, refused atomic.Int32
			parallel(times(4, func(int) {
				_, _, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
					if row.Binding.Proofs != int64(round) {
						return false, late
					}
					row.Binding.Proofs++
					return false, nil
				})
				switch {
				case err == nil:
					counted.Add(1)
				case errors.Is(err, late):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})...)
			if counted.Load() != 1 || refused.Load() != 3 {
				t.Fatalf("round %d: %d counted and %d refused, want 1 and 3", round, counted.Load(), refused.Load())
			}
		}
	}},
}
