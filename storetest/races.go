package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// The races of the order of reads and writes, each with real parallelism and
// many rounds. A failure names the duty; which round hits it is chance.
var raceDuties = []duty{
	{"A sign-in that read the epoch before a sign-out does not survive it", raceSignIn},
	{"A sign-in is active only if it read the epoch after the last sign-out", raceEpochAndSignIn},
	{"No read that began after a sign-out returned shows the session alive", raceSnapshotAfterSignOut},
	{"No read that began after End returned shows the session alive", raceSnapshotAfterEnd},
	{"Parallel Ends of one session change it once and give one entry", raceEnds},
	{"Parallel Ends of a family give one entry for each session", raceFamilyEnds},
	{"A child that starts while its parent ends is not active afterwards", raceChild},
	{"A touch never resurrects", raceEndTouch},
	{"A session that ends while it is kept stays ended", raceKeepEnd},
	{"Parallel sign-outs of others end one another", raceKeeps},
	{"Parallel updates lose nothing", raceUpdates},
	{"An update takes no touch back", raceUpdateTouch},
	{"Each stale update and each advance raises the epoch by one", raceEpochs},
	{"Parallel first writes of a subject make one row", raceNewSubject},
	{"Everything at once keeps the log and the rows in step", raceEverything},
}

// rounds runs fn with a subject of its own each time, until one fails.
func (e *env) rounds(fn func(subject string)) {
	for i := range e.Rounds {
		fn(fmt.Sprintf("subject-%d", i))
		if e.t.Failed() {
			e.t.Logf("failed in round %d of %d", i+1, e.Rounds)
			return
		}
	}
}

// maybeStart gives every second subject a row and a past.
func (e *env) maybeStart(subject string) {
	if e.random.IntN(2) == 0 {
		e.start(subject)
		if e.random.IntN(2) == 0 {
			e.advance(signOut(subject))
		}
	}
}

func raceSignIn(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		e.maybeStart(subject)
		epoch := e.subject(subject).Epoch
		signIns := make([]counterfoil.Session, 3)
		for i := range signIns {
			signIns[i] = e.session(subject)
			signIns[i].Epoch0 = epoch
		}
		started := make([]bool, len(signIns))
		parallel(append(times(len(signIns), func(i int) {
			snap, err := e.sessions.Insert(e.ctx, signIns[i])
			started[i] = err == nil
			if err != nil && !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
				t.Errorf("Insert: %v", err)
			}
			if err == nil && (snap.Session.End != nil || snap.Session.Epoch0 < snap.Subject.SignedOutBelow) {
				t.Error("Insert answered with a session that had ended already")
			}
		}), func() {
			if _, err := e.sessions.Advance(e.ctx, signOut(subject)); err != nil {
				t.Errorf("Advance: %v", err)
			}
		}, func() { // others write too: the epoch of a subject without a row moves on
			if _, err := e.sessions.Advance(e.ctx, rightsOnly("other")); err != nil {
				t.Errorf("Advance of another: %v", err)
			}
		})...)
		for i, s := range signIns {
			if started[i] {
				e.wantRevoked(s.ID, "its epoch was read before the sign-out")
			}
		}
	})
}

func raceEpochAndSignIn(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		e.maybeStart(subject)
		signIns := make([]counterfoil.Session, 4)
		for i := range signIns {
			signIns[i] = e.session(subject)
		}
		started := make([]bool, len(signIns))
		parallel(append(times(len(signIns), func(i int) {
			if i > 0 { // the first leaves it to Insert
				sub, err := e.sessions.Subject(e.ctx, subject)
				if err != nil {
					t.Errorf("Subject: %v", err)
					return
				}
				signIns[i].Epoch0 = sub.Epoch
			}
			snap, err := e.sessions.Insert(e.ctx, signIns[i])
			started[i] = err == nil
			if err == nil {
				signIns[i].Epoch0 = snap.Session.Epoch0
			} else if !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
				t.Errorf("Insert: %v", err)
			}
		}), times(2, func(int) {
			if _, err := e.sessions.Advance(e.ctx, signOut(subject)); err != nil {
				t.Errorf("Advance: %v", err)
			}
		})...)...)
		below := e.subject(subject).SignedOutBelow
		for i, s := range signIns {
			switch {
			case started[i] && s.Epoch0 < below:
				e.wantRevoked(s.ID, "its epoch was read before the last sign-out")
			case started[i]:
				e.wantActive(s.ID, "its epoch was read after the last sign-out")
			}
		}
	})
}

// raceReads lets end run beside reads of one session, and wants no read that
// began after end returned to show it active.
func (e *env) raceReads(sid string, end func() error) {
	var over atomic.Bool
	parallel(append(times(3, func(int) {
		for range 12 {
			was := over.Load()
			snap, err := e.sessions.Snapshot(e.ctx, sid)
			if err != nil {
				e.t.Errorf("Snapshot: %v", err)
				return
			}
			if was && snap.Session.Status(snap.Now) == counterfoil.StatusActive {
				e.t.Error("a Snapshot shows the session active though the call that ended it had returned")
			}
			if snap.Session.End == nil && snap.Session.Epoch0 < snap.Subject.SignedOutBelow {
				e.t.Error("a Snapshot holds a session without an end and a subject that says it ended: not one moment")
			}
		}
	}), func() {
		if err := end(); err != nil {
			e.t.Errorf("the ending call: %v", err)
		}
		over.Store(true)
	})...)
}

func raceSnapshotAfterSignOut(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		s := e.start(subject)
		e.raceReads(s.ID, func() error {
			_, err := e.sessions.Advance(e.ctx, signOut(subject))
			return err
		})
		page, _, err := e.sessions.List(e.ctx, counterfoil.ListQuery{Subject: subject, ActiveAt: e.clock.now(), Limit: 1})
		if err != nil || len(page) != 0 {
			t.Errorf("List of active ones after the sign-out: got %d sessions, error %v", len(page), err)
		}
	})
}

func raceSnapshotAfterEnd(_ *testing.T, e *env) {
	e.rounds(func(subject string) {
		s := e.start(subject)
		e.raceReads(s.ID, func() error {
			_, err := e.sessions.End(e.ctx, endRequest(s.ID))
			return err
		})
	})
}

func raceEnds(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		s := e.start(subject)
		after := e.head().Position
		var reported record
		var changed atomic.Int32
		parallel(times(4, func(int) {
			ended, err := e.sessions.End(e.ctx, endRequest(s.ID))
			if err != nil {
				t.Errorf("End: %v", err)
			}
			if ended.Changed {
				changed.Add(1)
			}
			if ended.Session.End == nil {
				t.Error("End returned a session without an end")
			}
			reported.add(ended.Revocations...)
		})...)
		if changed.Load() != 1 || len(reported.all) != 1 {
			t.Errorf("%d calls changed the session and %d entries were reported, want one each", changed.Load(), len(reported.all))
		}
		e.wantLogged(after, reported.all)
	})
}

func raceFamilyEnds(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		family := []counterfoil.Session{e.start(subject)}
		for i := range 5 {
			family = append(family, e.insert(e.child(family[i/2], subject)))
		}
		after := e.head().Position
		var reported record
		parallel(times(len(family), func(i int) {
			ended, err := e.sessions.End(e.ctx, endRequest(family[i].ID))
			if err != nil {
				t.Errorf("End: %v", err)
			}
			reported.add(ended.Revocations...)
		})...)
		e.wantLogged(after, reported.all)
		e.wantOneEntryEach(reported.all, len(family))
		for _, s := range family {
			e.wantRevoked(s.ID, "it and its ancestors were ended")
		}
	})
}

func (e *env) wantOneEntryEach(entries []counterfoil.Revocation, n int) {
	e.t.Helper()
	seen := map[string]bool{}
	for _, r := range entries {
		if r.Kind == revoked.Session && seen[r.ID] {
			e.t.Errorf("session %s was reported twice", r.ID)
		}
		seen[r.ID] = true
	}
	if len(seen) != n {
		e.t.Errorf("entries for %d sessions, want %d", len(seen), n)
	}
}

func raceChild(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		parent := e.start(subject)
		c := e.child(parent, "child of "+subject)
		var insertErr error
		parallel(func() {
			_, insertErr = e.sessions.Insert(e.ctx, c)
		}, func() {
			if _, err := e.sessions.End(e.ctx, endRequest(parent.ID)); err != nil {
				t.Errorf("End: %v", err)
			}
		})
		if insertErr == nil && e.active(c.ID) {
			t.Error("the parent has ended and its child is active")
		}
	})
}

func raceEndTouch(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		byEnd, byEpoch := e.start(subject), e.start(subject+" too")
		parallel(append(times(3, func(i int) {
			for j := range 4 {
				at := byEnd.LastActiveAt.Add(time.Duration(4*i+j) * time.Second)
				if err := e.sessions.Touch(e.ctx, []counterfoil.Touch{{ID: byEnd.ID, At: at}, {ID: byEpoch.ID, At: at}}); err != nil {
					t.Errorf("Touch: %v", err)
				}
			}
		}), func() {
			if _, err := e.sessions.End(e.ctx, endRequest(byEnd.ID)); err != nil {
				t.Errorf("End: %v", err)
			}
		}, func() {
			if _, err := e.sessions.Advance(e.ctx, signOut(byEpoch.Subject)); err != nil {
				t.Errorf("Advance: %v", err)
			}
		})...)
		for _, s := range []counterfoil.Session{byEnd, byEpoch} {
			e.wantRevoked(s.ID, "it was ended while touched")
			before := e.snapshot(s.ID).Session.LastActiveAt
			e.touch(counterfoil.Touch{ID: s.ID, At: before.Add(time.Minute)})
			sameTime(t, "LastActiveAt of an ended session", e.snapshot(s.ID).Session.LastActiveAt, before)
		}
	})
}

func raceKeepEnd(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		s := e.start(subject)
		after := e.head().Position
		var done counterfoil.Advanced
		var ended counterfoil.Ended
		parallel(func() {
			var err error
			if done, err = e.sessions.Advance(e.ctx, others(subject, s.ID)); err != nil {
				t.Errorf("Advance: %v", err)
			}
		}, func() {
			var err error
			if ended, err = e.sessions.End(e.ctx, endRequest(s.ID)); err != nil {
				t.Errorf("End: %v", err)
			}
		})
		if t.Failed() {
			return
		}
		e.wantRevoked(s.ID, "End returned, whether it was kept before or not")
		if !ended.Changed || len(ended.Revocations) != 1 {
			t.Fatalf("End: got Changed %t and %d entries, want true and one", ended.Changed, len(ended.Revocations))
		}
		kept := done.Kept != nil
		if except := done.Revocation.Except == s.ID; except != kept {
			t.Errorf("the session was kept: %t, and the entry excepts it: %t", kept, except)
		}
		if first := done.Revocation.Position < ended.Revocations[0].Position; first != kept {
			t.Errorf("the sign-out came first: %t, and it kept the session: %t", first, kept)
		}
		e.wantLogged(after, append(ended.Revocations, done.Revocation))
	})
}

func raceKeeps(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		devices := []counterfoil.Session{e.start(subject), e.start(subject), e.start(subject)}
		before := e.subject(subject).Epoch
		var kept atomic.Int32
		parallel(times(len(devices), func(i int) {
			done, err := e.sessions.Advance(e.ctx, others(subject, devices[i].ID))
			if err != nil {
				t.Errorf("Advance: %v", err)
			}
			if done.Kept != nil {
				kept.Add(1)
			}
		})...)
		if kept.Load() != 1 {
			t.Errorf("%d sign-outs kept their session, want the first one only", kept.Load())
		}
		for _, s := range devices {
			e.wantRevoked(s.ID, "another device signed out all others")
		}
		if sub := e.subject(subject); sub.Epoch != before+int64(len(devices)) {
			t.Errorf("got epoch %d, want %d", sub.Epoch, before+int64(len(devices)))
		}
	})
}
