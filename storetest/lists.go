package storetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// list walks all pages of q.
func (e *env) list(q counterfoil.ListQuery) (all []counterfoil.Session) {
	e.t.Helper()
	for range 1000 {
		page, next, err := e.sessions.List(e.ctx, q)
		e.must("List", err)
		if len(page) > q.Limit {
			e.t.Fatalf("List: got %d sessions, want at most the limit of %d", len(page), q.Limit)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		q.After = next
	}
	e.t.Fatal("List: the pages do not come to an end")
	return nil
}

func (e *env) wantListed(what string, q counterfoil.ListQuery, want ...counterfoil.Session) {
	e.t.Helper()
	ids := func(all []counterfoil.Session) (out []string) {
		for _, s := range all {
			out = append(out, s.ID)
		}
		slices.Sort(out)
		return out
	}
	if got := ids(e.list(q)); !slices.Equal(got, ids(want)) {
		e.t.Errorf("List %s: got %q, want %q", what, got, ids(want))
	}
}

var listDuties = []duty{
	{"List of nothing is empty", func(t *testing.T, e *env) {
		e.wantListed("of an empty store", counterfoil.ListQuery{Limit: 10})
		e.wantListed("of an unknown subject", counterfoil.ListQuery{Subject: "ann", Limit: 10})
	}},
	{"List gives the newest first", func(t *testing.T, e *env) {
		for range 20 {
			s := e.session("ann")
			s.CreatedAt = s.CreatedAt.Add(time.Duration(e.random.IntN(10)) * time.Second)
			e.insert(s)
		}
		all := e.list(counterfoil.ListQuery{Limit: 7})
		if len(all) != 20 {
			t.Errorf("got %d sessions, want 20", len(all))
		}
		if !slices.IsSortedFunc(all, func(a, b counterfoil.Session) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
			t.Error("the sessions are not sorted by CreatedAt, newest first")
		}
	}},
	{"List gives whole sessions", func(t *testing.T, e *env) {
		s := e.session("ann")
		s.Roles, s.Scope, s.Extra = []string{"admin"}, []string{}, map[string]any{"plan": "pro"}
		s = e.insert(s)
		all := e.list(counterfoil.ListQuery{Limit: 1})
		if len(all) != 1 {
			t.Fatalf("got %d sessions, want one", len(all))
		}
		sameSession(t, "List", all[0], s)
	}},
	{"List selects by subject and client", func(t *testing.T, e *env) {
		annWeb, annApp, benApp := e.session("ann"), e.session("ann"), e.session("ben")
		annApp.ClientID, benApp.ClientID = "app", "app"
		for _, s := range []counterfoil.Session{annWeb, annApp, benApp} {
			e.insert(s)
		}
		e.wantListed("of all", counterfoil.ListQuery{Limit: 1}, annWeb, annApp, benApp)
		e.wantListed("of a subject", counterfoil.ListQuery{Subject: "ann", Limit: 1}, annWeb, annApp)
		e.wantListed("of a client", counterfoil.ListQuery{ClientID: "app", Limit: 1}, annApp, benApp)
		e.wantListed("of both", counterfoil.ListQuery{Subject: "ann", ClientID: "app", Limit: 1}, annApp)
		e.wantListed("of an unknown client", counterfoil.ListQuery{ClientID: "App", Limit: 1})
	}},
	{"List resolves ends", func(t *testing.T, e *env) {
		e.start("ben")
		e.end(e.start("ann").ID)
		e.advance(signOut("ben"))
		for _, s := range e.list(counterfoil.ListQuery{Limit: 10}) {
			sameEnd(t, "End in the list", s.End, e.snapshot(s.ID).Session.End)
			if s.End == nil {
				t.Errorf("a session of %s ended, and the list tells no End", s.Subject)
			}
		}
	}},
	{"List with ActiveAt leaves out what ended or expired", func(t *testing.T, e *env) {
		byEnd, byEpoch, kept := e.start("ann"), e.start("ben"), e.start("ben")
		short, idles, active := e.session("cleo"), e.session("cleo"), e.start("cleo")
		short.ExpiresAt = e.clock.now().Add(10 * time.Minute)
		idles.IdleTimeout = 20 * time.Minute
		e.insert(short)
		e.insert(idles)
		e.end(byEnd.ID)
		e.advance(others("ben", kept.ID))
		now := e.clock.now()
		all := []counterfoil.Session{byEnd, byEpoch, kept, short, idles, active}
		e.wantListed("of all", counterfoil.ListQuery{Limit: 2}, all...)
		e.wantListed("active now", counterfoil.ListQuery{ActiveAt: now, Limit: 2}, kept, short, idles, active)
		e.wantListed("active at the absolute end of one", counterfoil.ListQuery{ActiveAt: now.Add(10 * time.Minute), Limit: 2}, kept, idles, active)
		e.wantListed("active at the idle end of one", counterfoil.ListQuery{ActiveAt: now.Add(20 * time.Minute), Limit: 2}, kept, active)
		e.wantListed("active a moment before", counterfoil.ListQuery{ActiveAt: now.Add(20*time.Minute - time.Millisecond), Limit: 2}, kept, idles, active)
		e.wantListed("active of a subject", counterfoil.ListQuery{Subject: "ben", ActiveAt: now, Limit: 2}, kept)
	}},
	{"Pages neither repeat nor leave out sessions, also of one moment", func(t *testing.T, e *env) {
		var all []counterfoil.Session
		for range 23 {
			all = append(all, e.start("ann")) // the clock stands: one CreatedAt for all
		}
		for _, limit := range []int{1, 2, 7, 22, 23, 24, 1000} {
			e.wantListed("in pages", counterfoil.ListQuery{Subject: "ann", Limit: limit}, all...)
		}
	}},
	{"Pages stay whole while sessions come and go", func(t *testing.T, e *env) {
		want := map[string]bool{}
		for range 12 {
			want[e.start("ann").ID] = true
			e.clock.move(time.Second)
		}
		q := counterfoil.ListQuery{Subject: "ann", Limit: 3}
		got := map[string]int{}
		for range 10 {
			page, next, err := e.sessions.List(e.ctx, q)
			e.must("List", err)
			for _, s := range page {
				got[s.ID]++
			}
			if q.After = next; next == "" {
				break
			}
			e.start("ann") // newer: on a page that was read
			e.end(page[0].ID)
		}
		for id := range want {
			if got[id] != 1 {
				t.Errorf("a session that was there all the time came %d times", got[id])
			}
		}
	}},
	{"A cursor outlives the session it stands on", func(t *testing.T, e *env) {
		var ids []string
		for range 4 {
			ids = append(ids, e.start("ann").ID)
			e.clock.move(time.Second)
		}
		_, next, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Limit: 2})
		e.must("List", err)
		e.end(ids[2]) // the last of the first page
		e.clock.move(10 * time.Minute)
		if n := e.purge(e.clock.now(), 10); n != 1 {
			t.Fatalf("purged %d sessions, want the ended one", n)
		}
		page, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Limit: 2, After: next})
		e.must("List after a purge", err)
		if len(page) != 2 || page[0].ID != ids[1] || page[1].ID != ids[0] {
			t.Errorf("got %d sessions after the cursor, want the two older ones", len(page))
		}
	}},
	{"A cursor that List never gave is ErrInvalidCursor", func(t *testing.T, e *env) {
		e.start("ann")
		for _, after := range []string{"x", "!", " ", "'; --", "\x00", "AAAA", "-1", "9999999999999999999999", strings.Repeat("A", 5000)} {
			_, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Limit: 2, After: after})
			if len(after) > 20 {
				after = after[:20] + "…"
			}
			e.wantErr("List after "+after, err, counterfoil.ErrInvalidCursor)
		}
	}},
	{"A limit outside 1 … 1000 is an error", func(t *testing.T, e *env) {
		for _, limit := range []int{-1, 0, 1001} {
			if _, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Limit: limit}); err == nil {
				t.Errorf("limit %d: got no error", limit)
			}
		}
	}},
}

// purge repeats Purge until nothing is left to delete.
func (e *env) purge(before time.Time, limit int) (total int) {
	e.t.Helper()
	for range 1000 {
		n, err := e.sessions.Purge(e.ctx, before, limit)
		e.must("Purge", err)
		if n > limit || n < 0 {
			e.t.Fatalf("Purge deleted %d, want at most %d", n, limit)
		}
		if n == 0 {
			return total
		}
		total += n
	}
	e.t.Fatal("Purge does not come to an end")
	return 0
}

var purgeDuties = []duty{
	{"Purge deletes what ended or expired before, and nothing else", func(t *testing.T, e *env) {
		byEnd, byEpoch, kept := e.start("ann"), e.start("ben"), e.start("ben")
		short, idles := e.session("cleo"), e.session("cleo")
		short.ExpiresAt, idles.IdleTimeout = e.clock.now().Add(time.Minute), time.Minute
		for _, s := range []*counterfoil.Session{&byEnd, &byEpoch, &kept} {
			e.update(s.ID, false, func(row *counterfoil.Session) { row.IdleTimeout = absolute })
		}
		e.insert(short)
		e.insert(idles)
		e.end(byEnd.ID)
		e.advance(others("ben", kept.ID))
		e.clock.move(10 * time.Minute)
		cut := e.clock.now()
		e.clock.move(10 * time.Minute)
		lateEnd, lateEpoch, active := e.start("dora"), e.start("eve"), e.start("finn")
		e.end(lateEnd.ID)
		e.advance(signOut("eve"))
		e.clock.move(time.Minute)
		if n := e.purge(cut, 100); n != 4 {
			t.Errorf("deleted %d sessions, want 4", n)
		}
		e.wantListed("after a purge", counterfoil.ListQuery{Limit: 10}, kept, lateEnd, lateEpoch, active)
		for _, s := range []counterfoil.Session{byEnd, byEpoch, short, idles} {
			_, err := e.sessions.Snapshot(e.ctx, s.ID)
			e.wantErr("Snapshot of a purged session", err, counterfoil.ErrNotFound)
		}
	}},
	{"Purge never deletes an active session", func(t *testing.T, e *env) {
		// Whatever time the caller gives: by the store's clock it is active.
		s := e.start("ann")
		e.purge(e.clock.now().Add(1000*time.Hour), 100)
		e.wantActive(s.ID, "it was active when Purge ran")
	}},
	{"Purge keeps to its limit and counts", func(t *testing.T, e *env) {
		for range 10 {
			e.end(e.start("ann").ID)
		}
		e.clock.move(time.Hour)
		cut := e.clock.now()
		for _, want := range []int{3, 3, 3, 1, 0} {
			n, err := e.sessions.Purge(e.ctx, cut, 3)
			e.must("Purge", err)
			if n != want {
				t.Errorf("deleted %d, want %d", n, want)
			}
		}
		if n := len(e.list(counterfoil.ListQuery{Limit: 10})); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	}},
	{"Purge leaves the subject and its epochs", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.Epoch0 = e.subject("ann").Epoch
		e.start("ann")
		e.advance(signOut("ann"))
		want := e.subject("ann")
		e.clock.move(time.Hour)
		e.purge(e.clock.now(), 10)
		sameSubject(t, "Subject", e.subject("ann"), want)
		_, err := e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert with the old epoch", err, counterfoil.ErrSignedOutMeanwhile)
	}},
	{"Purge of a parent leaves its active child, which can still be ended", func(t *testing.T, e *env) {
		parent := e.session("ann")
		parent.IdleTimeout = time.Minute
		e.insert(parent)
		c := e.insert(e.child(parent, "ann"))
		e.clock.move(10 * time.Minute)
		e.purge(e.clock.now(), 10)
		e.wantActive(c.ID, "only its parent had expired")
		e.end(c.ID)
		e.wantRevoked(c.ID, "it was ended")
	}},
}
