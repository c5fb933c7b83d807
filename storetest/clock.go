package storetest

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

var clockDuties = []duty{
	{"Time passing makes an unused session expire", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.clock.move(idle - time.Millisecond)
		e.wantActive(s.ID, "a moment before its idle end")
		e.wantListed("a moment before the idle end", counterfoil.ListQuery{ActiveAt: e.clock.now(), Limit: 10}, s)
		e.clock.move(time.Millisecond)
		if snap := e.snapshot(s.ID); snap.Session.Status(snap.Now) != counterfoil.StatusExpired {
			t.Errorf("got %s at the idle end, want expired", snap.Session.Status(snap.Now))
		}
		e.wantListed("at the idle end", counterfoil.ListQuery{ActiveAt: e.clock.now(), Limit: 10})
	}},
	{"Use keeps a session up to its absolute end", func(t *testing.T, e *env) {
		s := e.start("ann")
		for e.clock.now().Before(s.ExpiresAt.Add(-idle / 2)) {
			e.clock.move(idle / 2)
			e.wantActive(s.ID, "it is in use")
			e.touch(counterfoil.Touch{ID: s.ID, At: e.clock.now()})
		}
		e.wantListed("in use", counterfoil.ListQuery{ActiveAt: e.clock.now(), Limit: 10}, s)
		e.clock.move(idle / 2)
		e.touch(counterfoil.Touch{ID: s.ID, At: e.clock.now()})
		if snap := e.snapshot(s.ID); snap.Session.Status(snap.Now) != counterfoil.StatusExpired {
			t.Errorf("got %s at the absolute end, want expired", snap.Session.Status(snap.Now))
		}
		e.wantListed("at the absolute end", counterfoil.ListQuery{ActiveAt: e.clock.now(), Limit: 10})
	}},
	{"A clock set back revives no ended session", func(t *testing.T, e *env) {
		byEnd, byEpoch := e.start("ann"), e.start("ben")
		c := e.insert(e.child(byEnd, "cleo"))
		e.end(byEnd.ID)
		e.advance(signOut("ben"))
		for _, jump := range []time.Duration{-time.Hour, -1000 * time.Hour, 3000 * time.Hour} {
			e.clock.move(jump)
			for why, id := range map[string]string{"End": byEnd.ID, "a sign-out": byEpoch.ID, "its parent": c.ID} {
				e.wantRevoked(id, "ended by "+why+" before the clock jumped")
			}
			e.wantListed("of active ones", counterfoil.ListQuery{ActiveAt: e.clock.now(), Limit: 10})
		}
	}},
	{"A clock set back opens no gap for an old sign-in", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.Epoch0 = e.subject("ann").Epoch
		e.advance(signOut("ann"))
		e.clock.move(-time.Hour)
		_, err := e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert", err, counterfoil.ErrSignedOutMeanwhile)
	}},
	{"A clock set back does not take LastActiveAt back", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.clock.move(-30 * time.Minute)
		e.touch(counterfoil.Touch{ID: s.ID, At: e.clock.now()})
		sameTime(t, "LastActiveAt", e.snapshot(s.ID).Session.LastActiveAt, s.LastActiveAt)
	}},
	{"A clock set back deletes nothing too early", func(t *testing.T, e *env) {
		all := e.change()
		s := e.start("ann")
		e.clock.move(-time.Hour)
		now := e.clock.now()
		if n := e.prune(now); n != 0 {
			t.Errorf("pruned %d entries", n)
		}
		if n := e.purge(now, 10); n != 0 {
			t.Errorf("purged %d sessions that ended after this time", n)
		}
		e.wantLogged(0, all)
		e.wantActive(s.ID, "it has just started")
	}},
	{"Positions and epochs rise whatever the clock does", func(t *testing.T, e *env) {
		var all []counterfoil.Revocation
		epoch := e.subject("ann").Epoch
		for _, jump := range []time.Duration{0, -time.Hour, 100 * time.Hour, -1000 * time.Hour} {
			e.clock.move(jump)
			all = append(all, e.change()...)
			if now := e.subject("ann").Epoch; now <= epoch {
				t.Errorf("the epoch went from %d to %d", epoch, now)
			} else {
				epoch = now
			}
		}
		e.wantLogged(0, all)
	}},
	{"A clock set forward does not end what is in use later", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.clock.move(1000 * time.Hour)
		if e.active(s.ID) {
			t.Error("a session is active after its end")
		}
		e.clock.move(-1000 * time.Hour)
		e.wantActive(s.ID, "the clock was wrong for a while; nobody ended it")
	}},
}
