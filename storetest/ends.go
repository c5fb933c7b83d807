package storetest

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

var endDuties = []duty{
	{"End records reason, actor and the store's time", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.clock.move(3 * time.Minute)
		r := endRequest(s.ID)
		r.End.At = e.clock.now().Add(-100 * time.Hour) // the store's clock counts
		ended, err := e.sessions.End(e.ctx, r)
		e.must("End", err)
		if !ended.Changed {
			t.Error("Changed: got false, want true")
		}
		want := s
		want.End = &counterfoil.End{Reason: counterfoil.SignedOut, Actor: "user", At: e.clock.now()}
		sameSession(t, "Ended.Session", ended.Session, want)
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, want)
		e.wantRevoked(s.ID, "it was ended")
	}},
	{"End gives one feed entry and logs it", func(t *testing.T, e *env) {
		s := e.start("ann")
		ended := e.end(s.ID)
		if len(ended.Revocations) != 1 {
			t.Fatalf("got %d entries, want one", len(ended.Revocations))
		}
		r := ended.Revocations[0]
		if r.Kind != revoked.Session || r.ID != s.ID || r.StaleBelow != 0 || r.RevokedBelow != 0 || r.Except != "" {
			t.Errorf("got %q, want an entry of kind s for %s and nothing more", brief(ended.Revocations), s.ID)
		}
		e.wantUntil(r)
		e.wantLogged(0, ended.Revocations)
	}},
	{"End leaves the other sessions and the epoch alone", func(t *testing.T, e *env) {
		s, other := e.start("ann"), e.start("ann")
		before := e.subject("ann")
		e.end(s.ID)
		e.wantActive(other.ID, "only its sibling was ended")
		sameSubject(t, "Subject", e.subject("ann"), before)
	}},
	{"End of an ended session changes nothing and is no error", func(t *testing.T, e *env) {
		s := e.start("ann")
		first := e.end(s.ID)
		e.clock.move(time.Minute)
		r := endRequest(s.ID)
		r.End = counterfoil.End{Reason: counterfoil.Revoked, Actor: "operator"}
		again, err := e.sessions.End(e.ctx, r)
		e.must("End again", err)
		if again.Changed || len(again.Revocations) != 0 {
			t.Errorf("got Changed %t and entries %q, want neither", again.Changed, brief(again.Revocations))
		}
		sameEnd(t, "the first end stays", again.Session.End, first.Session.End)
		sameEnd(t, "the first end stays", e.snapshot(s.ID).Session.End, first.Session.End)
		e.wantLogged(0, first.Revocations)
	}},
	{"End after a sign-out everywhere changes nothing", func(t *testing.T, e *env) {
		s := e.start("ann")
		done := e.advance(signOut("ann"))
		e.clock.move(time.Minute)
		ended := e.end(s.ID)
		if ended.Changed || len(ended.Revocations) != 0 {
			t.Errorf("got Changed %t and entries %q, want neither", ended.Changed, brief(ended.Revocations))
		}
		sameEnd(t, "the sign-out is the end", ended.Session.End, done.Subject.SignedOut)
		sameEnd(t, "the sign-out is the end", e.snapshot(s.ID).Session.End, done.Subject.SignedOut)
		e.wantLogged(0, []counterfoil.Revocation{done.Revocation})
	}},
	{"End of an expired session is recorded", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.clock.move(2 * idle)
		if !e.end(s.ID).Changed {
			t.Error("Changed: got false, want true")
		}
		e.wantRevoked(s.ID, "ended after it had expired")
	}},
	{"End of an unknown session is ErrNotFound", func(t *testing.T, e *env) {
		_, err := e.sessions.End(e.ctx, endRequest(opaque.NewID()))
		e.wantErr("End", err, counterfoil.ErrNotFound)
		e.wantLogged(0, nil)
	}},
	{"End for another subject is ErrNotFound and changes nothing", func(t *testing.T, e *env) {
		s := e.start("ann")
		for _, subject := range []string{"ben", "Ann", "ann ", "%"} {
			r := endRequest(s.ID)
			r.Subject = subject
			_, err := e.sessions.End(e.ctx, r)
			e.wantErr("End for "+subject, err, counterfoil.ErrNotFound)
		}
		e.wantActive(s.ID, "End named another subject")
		e.wantLogged(0, nil)
		r := endRequest(s.ID)
		r.Subject = "ann"
		_, err := e.sessions.End(e.ctx, r)
		e.must("End for its own subject", err)
		e.wantRevoked(s.ID, "End named its subject")
	}},
	{"End ends all that was derived, one entry each", func(t *testing.T, e *env) {
		root := e.start("ann")
		var below []counterfoil.Session
		parent := root
		for _, subject := range []string{"ann", "ben", "cleo", "ann"} { // impersonated ones have other subjects
			parent = e.insert(e.child(parent, subject))
			below = append(below, parent, e.insert(e.child(root, subject)))
		}
		above, beside := e.start("ann"), e.start("ben")
		ended := e.end(root.ID)
		for _, s := range append(below, root) {
			e.wantRevoked(s.ID, "derived from a session that ended")
		}
		for _, s := range []counterfoil.Session{above, beside} {
			e.wantActive(s.ID, "not derived from the session that ended")
		}
		sameEnd(t, "the end of a derived session", e.snapshot(below[6].ID).Session.End, ended.Session.End)
		if len(ended.Revocations) != len(below)+1 {
			t.Errorf("got %d entries, want one for each of %d sessions", len(ended.Revocations), len(below)+1)
		}
		seen := map[string]bool{}
		for _, r := range ended.Revocations {
			if r.Kind != revoked.Session || seen[r.ID] {
				t.Errorf("got %q, want one entry of kind s for each session", brief(ended.Revocations))
			}
			seen[r.ID] = true
		}
		e.wantLogged(0, ended.Revocations)
	}},
	{"End of a derived session leaves its parent", func(t *testing.T, e *env) {
		root := e.start("ann")
		middle := e.insert(e.child(root, "ann"))
		leaf := e.insert(e.child(middle, "ann"))
		first := e.end(middle.ID)
		e.wantActive(root.ID, "only a derived session was ended")
		e.wantRevoked(leaf.ID, "derived from a session that ended")
		at := e.snapshot(leaf.ID).Session.End
		e.clock.move(time.Minute)
		second := e.end(root.ID)
		if len(second.Revocations) != 1 {
			t.Errorf("got %q, want no second entry for what had ended", brief(second.Revocations))
		}
		sameEnd(t, "the first end stays", e.snapshot(leaf.ID).Session.End, at)
		e.wantLogged(0, append(first.Revocations, second.Revocations...))
	}},
	{"End comes to its end in a circle of parents", func(t *testing.T, e *env) {
		parent := e.session("ann")
		parent.IdleTimeout = time.Minute
		e.insert(parent)
		c := e.insert(e.child(parent, "ann"))
		e.clock.move(10 * time.Minute)
		e.purge(e.clock.now(), 10)
		again := e.child(c, "ann")
		again.ID = parent.ID // a purged ID that somebody uses again
		if _, err := e.sessions.Insert(e.ctx, again); err != nil {
			return
		}
		ended := e.end(c.ID)
		e.wantRevoked(c.ID, "it was ended")
		e.wantRevoked(again.ID, "derived from a session that ended")
		e.wantOneEntryEach(ended.Revocations, 2)
		e.wantLogged(0, ended.Revocations)
	}},
	{"End cascades through many", func(t *testing.T, e *env) {
		root := e.start("ann")
		const n = 150
		for range n {
			e.insert(e.child(root, "ann"))
		}
		ended := e.end(root.ID)
		if len(ended.Revocations) != n+1 {
			t.Errorf("got %d entries, want %d", len(ended.Revocations), n+1)
		}
		e.wantLogged(0, ended.Revocations)
		if left := e.list(counterfoil.ListQuery{Subject: "ann", ActiveAt: e.clock.now(), Limit: 100}); len(left) != 0 {
			t.Errorf("%d sessions are still active", len(left))
		}
	}},
}
