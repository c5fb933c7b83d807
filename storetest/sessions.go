package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
)

var sessionDuties = []duty{
	{"Now is the clock of the store", func(t *testing.T, e *env) {
		for range 2 {
			now, err := e.Store.Now(e.ctx)
			e.must("Now", err)
			sameTime(t, "Now", now, e.clock.now())
			e.clock.move(90 * time.Minute)
		}
	}},
	{"Open of a store in use keeps everything", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.must("Open", e.Store.Open(e.ctx))
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, s)
	}},
	{"Snapshot of an unknown session is ErrNotFound", func(t *testing.T, e *env) {
		_, err := e.sessions.Snapshot(e.ctx, opaque.NewID())
		e.wantErr("Snapshot", err, counterfoil.ErrNotFound)
	}},
	{"Snapshot holds session, subject, key version and clock of one moment", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.addKey("key-1", counterfoil.KeyActive)
		e.advance(rightsOnly("ann"))
		e.clock.move(time.Minute)
		snap := e.snapshot(s.ID)
		sameSession(t, "Session", snap.Session, s)
		sameSubject(t, "Subject", snap.Subject, e.subject("ann"))
		ring, err := e.catalog.Keys(e.ctx)
		e.must("Keys", err)
		if snap.KeyVersion != ring.Version || ring.Version == 0 {
			t.Errorf("KeyVersion: got %d, want the ring's %d", snap.KeyVersion, ring.Version)
		}
		sameTime(t, "Now", snap.Now, e.clock.now())
	}},
	{"Insert returns the snapshot of its moment", func(t *testing.T, e *env) {
		given := e.session("ann")
		snap, err := e.sessions.Insert(e.ctx, given)
		e.must("Insert", err)
		again := e.snapshot(given.ID)
		sameSession(t, "Insert against a later Snapshot: Session", snap.Session, again.Session)
		sameSubject(t, "Insert against a later Snapshot: Subject", snap.Subject, again.Subject)
		sameTime(t, "Now", snap.Now, e.clock.now())
		if snap.KeyVersion != again.KeyVersion {
			t.Errorf("KeyVersion: got %d, want %d", snap.KeyVersion, again.KeyVersion)
		}
		if snap.Subject.ID != "ann" || snap.Session.End != nil {
			t.Errorf("got subject %q and end %v, want ann and no end", snap.Subject.ID, snap.Session.End)
		}
	}},
	{"Insert with Epoch0 zero takes the subject's present epoch", func(t *testing.T, e *env) {
		e.start("ann")
		e.advance(rightsOnly("ann"))
		s := e.start("ann")
		if want := e.subject("ann").Epoch; s.Epoch0 != want || want == 0 {
			t.Errorf("Epoch0: got %d, want %d", s.Epoch0, want)
		}
	}},
	{"Insert keeps an Epoch0 that was read before", func(t *testing.T, e *env) {
		e.start("ann")
		given := e.session("ann")
		given.Epoch0 = e.subject("ann").Epoch
		e.advance(rightsOnly("ann")) // rights only: the sign-in goes on
		if s := e.insert(given); s.Epoch0 != given.Epoch0 {
			t.Errorf("Epoch0: got %d, want %d", s.Epoch0, given.Epoch0)
		}
		e.wantActive(given.ID, "a change of rights ends no sign-in")
	}},
	{"Insert below SignedOutBelow is ErrSignedOutMeanwhile and leaves nothing", func(t *testing.T, e *env) {
		e.start("ann")
		given := e.session("ann")
		given.Epoch0 = e.subject("ann").Epoch
		e.advance(signOut("ann"))
		_, err := e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert", err, counterfoil.ErrSignedOutMeanwhile)
		_, err = e.sessions.Snapshot(e.ctx, given.ID)
		e.wantErr("Snapshot after a refused Insert", err, counterfoil.ErrNotFound)
	}},
	{"Insert with an Epoch0 from the future does not outlive a sign-out", func(t *testing.T, e *env) {
		// The number may come from a backend that made it up.
		e.start("ann")
		given := e.session("ann")
		given.Epoch0 = 1 << 60
		if _, err := e.sessions.Insert(e.ctx, given); err != nil {
			return // refusing is as good as taking the present epoch
		}
		e.advance(signOut("ann"))
		e.wantRevoked(given.ID, "Epoch0 above the subject's epoch must count as the present one")
	}},
	{"Insert below a parent that has ended, or is not there, is refused", func(t *testing.T, e *env) {
		byEnd, byEpoch := e.start("ann"), e.start("ben")
		e.end(byEnd.ID)
		e.advance(signOut("ben"))
		after := e.head()
		for _, subject := range []string{"ann", "ben", "cleo", "new"} {
			for why, parent := range map[string]counterfoil.Session{"End": byEnd, "a sign-out": byEpoch} {
				c := e.child(parent, subject)
				_, err := e.sessions.Insert(e.ctx, c)
				e.wantErr("Insert below one that had ended by "+why, err, counterfoil.ErrSessionRevoked)
				_, err = e.sessions.Snapshot(e.ctx, c.ID)
				e.wantErr("Snapshot of the refused", err, counterfoil.ErrNotFound)
			}
			_, err := e.sessions.Insert(e.ctx, e.child(e.session("ann"), subject))
			e.wantErr("Insert below an unknown parent", err, counterfoil.ErrNotFound)
		}
		if e.head().Timeline != after.Timeline || len(e.loggedAfter(after.Position)) > 0 {
			t.Error("a refused Insert wrote to the log")
		}
	}},
	{"Insert for a disabled subject is ErrSubjectDisabled and leaves nothing", func(t *testing.T, e *env) {
		a := rightsOnly("ann")
		a.Rights = &counterfoil.Rights{Disabled: true}
		e.advance(a)
		given := e.session("ann")
		_, err := e.sessions.Insert(e.ctx, given)
		e.wantErr("Insert", err, counterfoil.ErrSubjectDisabled)
		_, err = e.sessions.Snapshot(e.ctx, given.ID)
		e.wantErr("Snapshot after a refused Insert", err, counterfoil.ErrNotFound)
		a.Rights = &counterfoil.Rights{}
		e.advance(a)
		e.start("ann")
	}},
	{"Insert of an ID that is taken is an error and changes nothing", func(t *testing.T, e *env) {
		s := e.start("ann")
		twin := e.session("ben")
		twin.ID = s.ID
		if _, err := e.sessions.Insert(e.ctx, twin); err == nil {
			t.Error("Insert of a taken ID: got no error")
		}
		sameSession(t, "the first session", e.snapshot(s.ID).Session, s)
	}},
	{"Insert below a parent that ended gives no active session", func(t *testing.T, e *env) {
		// A derived session ends with its parent, so it cannot start after it.
		for name, endParent := range map[string]func(counterfoil.Session){
			"End":     func(s counterfoil.Session) { e.end(s.ID) },
			"Advance": func(s counterfoil.Session) { e.advance(signOut(s.Subject)) },
		} {
			parent := e.start("ann")
			endParent(parent)
			c := e.child(parent, "ben")
			if _, err := e.sessions.Insert(e.ctx, c); err == nil && e.active(c.ID) {
				t.Errorf("the parent ended by %s, and a child that started later is active", name)
			}
		}
	}},
	{"Callers share no memory with the store", func(t *testing.T, e *env) {
		given := e.session("ann")
		given.Roles, given.Scope = []string{"admin"}, []string{"read"}
		given.Extra = map[string]any{"plan": map[string]any{"name": "free"}}
		want := given
		want.Methods, want.Roles, want.Scope = []string{"pwd"}, []string{"admin"}, []string{"read"}
		want.Extra = map[string]any{"plan": map[string]any{"name": "free"}}
		got := e.insert(given)
		want.Epoch0 = got.Epoch0
		sameSession(t, "Insert", got, want)
		read := e.snapshot(given.ID).Session
		sameSession(t, "Snapshot", read, want)
		if t.Failed() {
			return
		}
		for _, s := range []counterfoil.Session{given, got, read} {
			s.Methods[0], s.Roles[0], s.Scope[0] = "x", "x", "x"
			s.Extra["plan"].(map[string]any)["name"] = "x"
			sameSession(t, "after a caller changed what it gave or got", e.snapshot(given.ID).Session, want)
		}
	}},

	{"Update changes the row and returns it", func(t *testing.T, e *env) {
		s := e.start("ann")
		want := s
		want.LastActiveAt = s.LastActiveAt.Add(time.Minute)
		want.IdleTimeout, want.ExpiresAt = 2*time.Hour, s.ExpiresAt.Add(time.Hour)
		want.AuthTime, want.Methods = s.AuthTime.Add(time.Second), []string{"pwd", "otp"}
		want.Device = counterfoil.Device{UserAgent: "Agent/2.0", IP: "2001:db8::1"}
		want.Roles, want.Scope = []string{"admin"}, []string{}
		want.Extra = map[string]any{"plan": "pro"}
		want.SecretHash = randomHash()
		got, revocations := e.update(s.ID, false, func(row *counterfoil.Session) {
			sameSession(t, "what fn sees", *row, s)
			*row = want
		})
		sameSession(t, "returned", got, want)
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, want)
		if len(revocations) != 0 || e.subject("ann").Epoch != s.Epoch0 {
			t.Errorf("without stale: got %d entries and epoch %d, want none and %d", len(revocations), e.subject("ann").Epoch, s.Epoch0)
		}
		e.wantLogged(0, nil)
	}},
	{"Update leaves ID, Subject, ClientID, ParentID, CreatedAt, End and Epoch0 alone", func(t *testing.T, e *env) {
		// Epoch0 too: raised here, it would bring back a session that a
		// sign-out everywhere has ended. Only Keep raises it.
		s := e.start("ann")
		other := e.start("ben")
		forge := func(row *counterfoil.Session) {
			row.ID, row.Subject, row.ClientID, row.ParentID = other.ID, "ben", "other", other.ID
			row.CreatedAt = row.CreatedAt.Add(-time.Hour)
			row.End = &counterfoil.End{Reason: counterfoil.Revoked}
			row.Epoch0 += 1000
			row.Methods = []string{"otp"}
		}
		want := s
		want.Methods = []string{"otp"}
		got, _ := e.update(s.ID, false, forge)
		sameSession(t, "returned", got, want)
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, want)
		sameSession(t, "the other session", e.snapshot(other.ID).Session, other)

		e.advance(signOut("ann"))
		e.tryUpdate(s.ID, func(row *counterfoil.Session) { row.Epoch0 += 1000; row.End = nil })
		e.wantRevoked(s.ID, "Update brought back a session that a sign-out ended")
		e.end(other.ID)
		e.tryUpdate(other.ID, func(row *counterfoil.Session) { row.End = nil })
		e.wantRevoked(other.ID, "Update brought back a session that End ended")
	}},
	{"Update of an unknown session is ErrNotFound", func(t *testing.T, e *env) {
		_, _, err := e.sessions.Update(e.ctx, opaque.NewID(), retain, func(*counterfoil.Session) (bool, error) {
			t.Error("fn was called for a session that is not there")
			return true, nil
		})
		e.wantErr("Update", err, counterfoil.ErrNotFound)
		e.wantLogged(0, nil)
	}},
	{"Update returns fn's error as it is and writes nothing", func(t *testing.T, e *env) {
		s := e.start("ann")
		mine := errors.New("mine")
		_, revocations, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
			row.Methods = []string{"x"}
			return true, mine
		})
		if err != mine { //nolint:errorlint // as it is, not wrapped
			t.Errorf("got error %v, want fn's own, not wrapped", err)
		}
		if len(revocations) != 0 {
			t.Errorf("got entries %q of an update that failed", brief(revocations))
		}
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, s)
		if epoch := e.subject("ann").Epoch; epoch != s.Epoch0 {
			t.Errorf("the epoch went from %d to %d by an update that failed", s.Epoch0, epoch)
		}
		e.wantLogged(0, nil)
	}},
	{"Update with stale raises the epoch by one and ends nothing", func(t *testing.T, e *env) {
		s := e.start("ann")
		before := e.subject("ann")
		_, revocations := e.update(s.ID, true, func(row *counterfoil.Session) { row.Extra = map[string]any{"plan": "pro"} })
		after := e.subject("ann")
		if after.Epoch != before.Epoch+1 || after.SignedOutBelow != before.SignedOutBelow {
			t.Errorf("got epoch %d, signed out below %d; want %d, %d", after.Epoch, after.SignedOutBelow, before.Epoch+1, before.SignedOutBelow)
		}
		if len(revocations) != 1 {
			t.Fatalf("got %d entries, want one", len(revocations))
		}
		e.wantSubjectEntry(revocations[0], "ann", after.Epoch, 0, "")
		e.wantLogged(0, revocations)
		e.wantActive(s.ID, "stale tokens are refreshed, the session goes on")
	}},
	{"Update shows fn the end of an ended session", func(t *testing.T, e *env) {
		s := e.start("ann")
		e.end(s.ID)
		_, _, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
			if row.End == nil {
				t.Error("fn sees no End")
			}
			return false, errors.New("leave it")
		})
		if err == nil {
			t.Error("fn was not asked")
		}
	}},

	{"Touch moves LastActiveAt forward, never back", func(t *testing.T, e *env) {
		s := e.start("ann")
		later := s.LastActiveAt.Add(10 * time.Minute)
		e.touch(counterfoil.Touch{ID: s.ID, At: later})
		sameTime(t, "after a later use", e.snapshot(s.ID).Session.LastActiveAt, later)
		e.touch(counterfoil.Touch{ID: s.ID, At: later.Add(-5 * time.Minute)})
		sameTime(t, "after an earlier use, told late", e.snapshot(s.ID).Session.LastActiveAt, later)
		last := later.Add(time.Minute)
		e.touch(counterfoil.Touch{ID: s.ID, At: last}, counterfoil.Touch{ID: s.ID, At: later.Add(time.Second)})
		sameTime(t, "after two uses of one session in one call", e.snapshot(s.ID).Session.LastActiveAt, last)
	}},
	{"Touch changes nothing but LastActiveAt", func(t *testing.T, e *env) {
		s := e.start("ann")
		want := s
		want.LastActiveAt = s.LastActiveAt.Add(time.Minute)
		e.touch(counterfoil.Touch{ID: s.ID, At: want.LastActiveAt})
		sameSession(t, "Snapshot", e.snapshot(s.ID).Session, want)
		e.wantLogged(0, nil)
	}},
	{"Touch skips unknown sessions and does the others", func(t *testing.T, e *env) {
		a, b := e.start("ann"), e.start("ben")
		at := a.LastActiveAt.Add(time.Minute)
		e.touch(counterfoil.Touch{ID: a.ID, At: at}, counterfoil.Touch{ID: opaque.NewID(), At: at}, counterfoil.Touch{ID: b.ID, At: at})
		sameTime(t, "before the unknown one", e.snapshot(a.ID).Session.LastActiveAt, at)
		sameTime(t, "after the unknown one", e.snapshot(b.ID).Session.LastActiveAt, at)
		e.touch()
	}},
	{"Touch leaves ended sessions as they are", func(t *testing.T, e *env) {
		byEnd, byEpoch := e.start("ann"), e.start("ben")
		e.end(byEnd.ID)
		e.advance(signOut("ben"))
		at := byEnd.LastActiveAt.Add(time.Minute)
		e.touch(counterfoil.Touch{ID: byEnd.ID, At: at}, counterfoil.Touch{ID: byEpoch.ID, At: at})
		for why, s := range map[string]counterfoil.Session{"ended by End": byEnd, "ended by Advance": byEpoch} {
			e.wantRevoked(s.ID, why+", then touched")
			sameTime(t, why+": LastActiveAt", e.snapshot(s.ID).Session.LastActiveAt, s.LastActiveAt)
		}
	}},
	{"Touch takes many at once", func(t *testing.T, e *env) {
		const n = 300
		var touches []counterfoil.Touch
		for range n {
			s := e.start("ann")
			touches = append(touches, counterfoil.Touch{ID: s.ID, At: s.LastActiveAt.Add(time.Minute)})
		}
		e.touch(touches...)
		for _, touch := range touches {
			sameTime(t, "LastActiveAt", e.snapshot(touch.ID).Session.LastActiveAt, touch.At)
		}
	}},
}

func (e *env) touch(touches ...counterfoil.Touch) {
	e.t.Helper()
	e.must("Touch", e.sessions.Touch(e.ctx, touches))
}

// tryUpdate changes a session that a store may also refuse to change.
func (e *env) tryUpdate(id string, fn func(*counterfoil.Session)) {
	_, _, _ = e.sessions.Update(e.ctx, id, retain, func(s *counterfoil.Session) (bool, error) {
		fn(s)
		return false, nil
	})
}
