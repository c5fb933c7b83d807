package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// change does one thing of each kind that is reported, and returns the reports.
func (e *env) change() (all []counterfoil.Revocation) {
	e.t.Helper()
	s, kept := e.start("ann"), e.start("ann")
	all = append(all, e.end(s.ID).Revocations...)
	all = append(all, e.advance(others("ann", kept.ID)).Revocation)
	all = append(all, e.advance(rightsOnly("ann")).Revocation)
	_, stale := e.update(kept.ID, true, func(*counterfoil.Session) {})
	all = append(all, stale...)
	return append(all, e.advance(signOut("ann")).Revocation)
}

func (e *env) prune(before time.Time) (total int) {
	e.t.Helper()
	const limit = 7
	for range 1000 {
		n, err := e.feed.Prune(e.ctx, before, limit)
		e.must("Prune", err)
		if n > limit || n < 0 {
			e.t.Fatalf("Prune deleted %d, want at most %d", n, limit)
		}
		if n == 0 {
			return total
		}
		total += n
	}
	e.t.Fatal("Prune does not come to an end")
	return 0
}

var feedDuties = []duty{
	{"The log of a new store is empty", func(t *testing.T, e *env) {
		e.wantLogged(0, nil)
		if h := e.head(); h.Position != 0 && len(e.logged()) == 0 {
			t.Logf("the first position is above %d", h.Position)
		}
	}},
	{"Each reported entry is in the log, once and with the same content", func(t *testing.T, e *env) {
		all := e.change()
		e.wantLogged(0, all)
		if head := e.head(); head.Position != all[len(all)-1].Position {
			t.Errorf("Head: got position %d, want that of the last entry, %d", head.Position, all[len(all)-1].Position)
		}
	}},
	{"What changes no token leaves no entry", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.update(s.ID, false, func(row *counterfoil.Session) { row.Methods = nil })
		e.touch(counterfoil.Touch{ID: s.ID, At: e.clock.now().Add(time.Minute)})
		e.subject("ben")
		e.addKey("key", counterfoil.KeyActive)
		e.wantLogged(0, nil)
	}},
	{"What fails leaves no entry", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.advance(signOut("ann"))
		after := e.head().Position
		given := e.session("ann")
		given.Epoch0 = s.Epoch0
		_, err := e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert", err, counterfoil.ErrSignedOutMeanwhile)
		_, err = e.sessions.End(e.ctx, endRequest(opaque.NewID()))
		e.wantErr("End", err, counterfoil.ErrNotFound)
		_, _, err = e.catalog.UpdateKeys(e.ctx, retain, func(r *counterfoil.KeyRing) error {
			r.Keys = append(r.Keys, counterfoil.KeyRecord{ID: "k", State: counterfoil.KeyRevoked})
			return errors.New("no")
		})
		if err == nil {
			t.Error("UpdateKeys: got no error")
		}
		e.wantLogged(after, nil)
	}},
	{"Record tells of a session that is not there", func(t *testing.T, e *env) {
		after := e.head().Position
		id := opaque.NewID()
		entry, err := e.feed.Record(e.ctx, counterfoil.Revocation{Kind: revoked.Session, ID: id}, retain)
		e.must("Record", err)
		if entry.Kind != revoked.Session || entry.ID != id || entry.Position <= after {
			t.Errorf("Record: got %+v", entry)
		}
		e.wantUntil(entry)
		e.wantLogged(after, []counterfoil.Revocation{entry})
		_, err = e.sessions.Snapshot(e.ctx, id)
		e.wantErr("Snapshot", err, counterfoil.ErrNotFound)
	}},
	{"Read starts above the position and keeps to the limit", func(t *testing.T, e *env) {
		var all []counterfoil.Revocation
		for range 3 {
			all = append(all, e.change()...)
		}
		for i := range len(all) + 1 {
			var after int64
			if i > 0 {
				after = all[i-1].Position
			}
			got, err := e.feed.Read(e.ctx, after, 4)
			e.must("Read", err)
			want := all[i:min(i+4, len(all))]
			if len(got) != len(want) || len(got) > 0 && (!sameEntry(got[0], want[0]) || !sameEntry(got[len(got)-1], want[len(want)-1])) {
				t.Errorf("Read after %d: got %q, want %q", after, brief(got), brief(want))
			}
		}
		got, err := e.feed.Read(e.ctx, 1<<62, 4)
		e.must("Read", err)
		if len(got) != 0 {
			t.Errorf("Read above the head: got %q", brief(got))
		}
	}},
	{"Positions are not given again, also when the log was emptied", func(t *testing.T, e *env) {
		for range 3 {
			all := e.change()
			last := all[len(all)-1].Position
			before := e.head()
			e.clock.move(retain + time.Minute)
			if n := e.prune(e.clock.now()); n != len(all) {
				t.Errorf("pruned %d entries, want all %d", n, len(all))
			}
			e.wantLogged(0, nil)
			if head := e.head(); head != before {
				t.Errorf("Head: got %+v after a prune, want %+v as before", head, before)
			}
			if next := e.change()[0].Position; next <= last {
				t.Errorf("position %d was given after %d", next, last)
			}
			e.clock.move(retain + time.Minute)
			e.prune(e.clock.now())
		}
	}},
	{"Entries are kept as long as anybody asked for", func(t *testing.T, e *env) {
		// What a node asked for holds for the entries of those that need less,
		// and for changes of every kind.
		e.addKey("key", counterfoil.KeyActive)
		f := e.follow(0)
		for _, d := range []time.Duration{3 * retain, 2 * retain, 4 * retain} {
			unsettled, err := e.feed.Retain(e.ctx, d)
			e.must("Retain", err)
			if unsettled < 0 || unsettled > time.Minute {
				t.Errorf("unsettled for %s, want at most a minute", unsettled)
			}
			longest := max(d, 3*retain)
			e.clock.move(time.Minute)
			all := e.change()
			if d == 4*retain {
				all = append(all, e.revokeKey("key")...)
			}
			logged := make(map[int64]counterfoil.Revocation)
			for _, r := range e.logged() {
				logged[r.Position] = r
			}
			for _, r := range all {
				for _, got := range []counterfoil.Revocation{r, logged[r.Position]} {
					if kept := got.Until.Sub(e.clock.now()); kept < longest-time.Millisecond || kept > longest+time.Second {
						t.Errorf("%q is kept for %s, and %s was asked for", brief([]counterfoil.Revocation{r}), kept, longest)
					}
				}
			}
			if f.next(); f.last.Retain != longest {
				t.Errorf("the tail tells of a retention of %s, want %s", f.last.Retain, longest)
			}
		}
		e.clock.move(time.Minute) // what was asked for long ago holds for everybody
		if unsettled, err := e.feed.Retain(e.ctx, retain); err != nil || unsettled != 0 {
			t.Errorf("Retain: %s, %v; want 0", unsettled, err)
		}
	}},
	{"Prune deletes what is past and keeps to its limit", func(t *testing.T, e *env) {
		old := e.change()
		e.clock.move(retain / 2)
		young := e.change()
		e.clock.move(retain/2 + 2*time.Second)
		for left := len(old); left > 0; left -= 2 {
			n, err := e.feed.Prune(e.ctx, e.clock.now(), 2)
			e.must("Prune", err)
			if n != min(left, 2) {
				t.Fatalf("pruned %d entries, want %d", n, min(left, 2))
			}
		}
		if n := e.prune(e.clock.now()); n != 0 {
			t.Errorf("pruned %d entries that are not past", n)
		}
		e.wantLogged(0, young)
	}},
	{"Prune never deletes an entry that is still needed", func(t *testing.T, e *env) {
		// Whatever time the caller gives: by the store's clock it is not past.
		all := e.change()
		if n := e.prune(e.clock.now().Add(1000 * time.Hour)); n != 0 {
			t.Errorf("pruned %d entries whose Until is to come", n)
		}
		e.wantLogged(0, all)
	}},
	{"Prune goes by its time, not only by the clock", func(t *testing.T, e *env) {
		all := e.change()
		cut := e.clock.now()
		e.clock.move(100 * time.Hour)
		if n := e.prune(cut); n != 0 {
			t.Errorf("pruned %d entries whose Until is after the given time", n)
		}
		e.wantLogged(0, all)
	}},
	{"Prune never deletes key entries", func(t *testing.T, e *env) {
		e.addKey("key", counterfoil.KeyActive)
		all := e.revokeKey("key")
		rest := e.change()
		e.clock.move(10000 * time.Hour)
		if n := e.prune(e.clock.now()); n != len(rest) {
			t.Errorf("pruned %d entries, want %d", n, len(rest))
		}
		e.wantLogged(0, all)
	}},
	{"The timeline stays", func(t *testing.T, e *env) {
		before := e.head().Timeline
		e.change()
		e.must("Open", e.Store.Open(e.ctx))
		if after := e.head().Timeline; after != before {
			t.Errorf("got timeline %d, want %d as before", after, before)
		}
	}},
}
