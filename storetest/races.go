package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
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

const (
	writers = 8
	writes  = 10
)

func raceUpdates(t *testing.T, e *env) {
	s := e.start("ann")
	parallel(times(writers, func(int) {
		for range writes {
			_, _, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
				if row.Extra == nil {
					row.Extra = map[string]any{"n": 0}
				}
				row.Extra["n"] = number(row.Extra["n"]) + 1
				return false, nil
			})
			if err != nil {
				t.Errorf("Update: %v", err)
				return
			}
		}
	})...)
	if n := number(e.snapshot(s.ID).Session.Extra["n"]); n != writers*writes {
		t.Errorf("%d updates added one each, and the sum is %d: updates were lost", writers*writes, n)
	}
}

func raceUpdateTouch(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		s := e.start(subject)
		last := s.LastActiveAt.Add(time.Minute)
		parallel(append(times(3, func(int) {
			for range 3 {
				_, _, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
					row.Methods = append(row.Methods, "x")
					return false, nil
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		}), func() {
			for i := range 3 {
				at := last.Add(time.Duration(i-2) * time.Second)
				if err := e.sessions.Touch(e.ctx, []counterfoil.Touch{{ID: s.ID, At: at}}); err != nil {
					t.Errorf("Touch: %v", err)
				}
			}
		})...)
		got := e.snapshot(s.ID).Session
		sameTime(t, "LastActiveAt after touches beside updates", got.LastActiveAt, last)
		if n := len(got.Methods) - len(s.Methods); n != 9 {
			t.Errorf("9 updates added one method each, and there are %d", n)
		}
	})
}

func raceEpochs(t *testing.T, e *env) {
	s := e.start("ann")
	before, after := e.subject("ann").Epoch, e.head().Position
	var reported record
	parallel(times(writers, func(i int) {
		for range writes {
			if i%2 == 0 {
				_, revocations, err := e.sessions.Update(e.ctx, s.ID, retain, func(*counterfoil.Session) (bool, error) { return true, nil })
				if err != nil {
					t.Errorf("Update: %v", err)
				}
				reported.add(revocations...)
				continue
			}
			done, err := e.sessions.Advance(e.ctx, rightsOnly("ann"))
			if err != nil {
				t.Errorf("Advance: %v", err)
			}
			reported.add(done.Revocation)
		}
	})...)
	if now := e.subject("ann").Epoch; now != before+writers*writes {
		t.Errorf("got epoch %d after %d changes, want %d", now, writers*writes, before+writers*writes)
	}
	e.wantLogged(after, reported.all)
	e.wantEpochsInOrder("ann", before)
}

// wantEpochsInOrder wants the log to tell every epoch of the subject above
// before once and in the order of positions.
func (e *env) wantEpochsInOrder(subject string, before int64) {
	e.t.Helper()
	for _, r := range e.logged() {
		if r.Kind != revoked.Subject || r.ID != subject || r.StaleBelow <= before {
			continue
		}
		if r.StaleBelow != before+1 {
			e.t.Errorf("the log tells epoch %d of %s after %d", r.StaleBelow, subject, before)
		}
		before = r.StaleBelow
	}
	if now := e.subject(subject).Epoch; now != before {
		e.t.Errorf("the epoch of %s is %d, and the log tells up to %d", subject, now, before)
	}
}

func raceNewSubject(t *testing.T, e *env) {
	e.rounds(func(subject string) {
		signIns := []counterfoil.Session{e.session(subject), e.session(subject)}
		var mu sync.Mutex
		var epochs []int64
		parallel(append(times(2, func(i int) {
			if _, err := e.sessions.Insert(e.ctx, signIns[i]); err != nil {
				t.Errorf("Insert: %v", err)
			}
		}), times(3, func(int) {
			done, err := e.sessions.Advance(e.ctx, rightsOnly(subject))
			if err != nil {
				t.Errorf("Advance: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			epochs = append(epochs, done.Subject.Epoch)
		})...)...)
		slices.Sort(epochs)
		if epochs[1] != epochs[0]+1 || epochs[2] != epochs[0]+2 {
			t.Errorf("three advances gave the epochs %d, want three in a row", epochs)
		}
		if sub := e.subject(subject); sub.Epoch != epochs[2] {
			t.Errorf("got epoch %d, want %d", sub.Epoch, epochs[2])
		}
		for _, s := range signIns {
			e.wantActive(s.ID, "nobody was signed out")
		}
	})
}

func raceEverything(t *testing.T, e *env) {
	for round := range max(2, e.Rounds/10) {
		subject := fmt.Sprintf("subject-%d", round)
		shared := make([]counterfoil.Session, 6)
		for i := range shared {
			s := e.session(subject)
			if i >= 4 {
				s.ParentID = shared[i-4].ID
			}
			shared[i] = e.insert(s)
		}
		before, after := e.subject(subject).Epoch, e.head().Position
		var reported record
		var mu sync.Mutex
		ended := map[string]bool{} // End has returned
		seeds := make([]uint64, 6)
		for i := range seeds {
			seeds[i] = e.random.Uint64()
		}
		parallel(times(len(seeds), func(i int) {
			random := rand.New(rand.NewPCG(e.Seed, seeds[i]))
			mine := slices.Clone(shared)
			for range 15 {
				s := mine[random.IntN(len(mine))]
				revocations, inserted, err := e.oneChange(random.IntN(10), subject, s)
				if err != nil {
					t.Error(err)
					return
				}
				reported.add(revocations...)
				if inserted != nil {
					mine = append(mine, *inserted)
				}
				for _, r := range revocations {
					if r.Kind == revoked.Session {
						mu.Lock()
						ended[r.ID] = true
						mu.Unlock()
					}
				}
			}
		})...)
		e.wantLogged(after, reported.all)
		e.wantEpochsInOrder(subject, before)
		sub := e.subject(subject)
		all := e.list(counterfoil.ListQuery{Subject: subject, Limit: 50})
		for _, s := range all {
			if byEpoch := s.Epoch0 < sub.SignedOutBelow; (ended[s.ID] || byEpoch) != (s.End != nil) {
				t.Errorf("session ended by End: %t, by sign-out: %t, and its End is %v", ended[s.ID], byEpoch, s.End)
			}
		}
		entries := map[string]int{}
		for _, r := range reported.all {
			if r.Kind == revoked.Session {
				entries[r.ID]++
			}
		}
		for id, n := range entries {
			if n != 1 {
				t.Errorf("session %s was reported %d times, want once", id, n)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// oneChange does what the number says to a session and its subject.
func (e *env) oneChange(n int, subject string, s counterfoil.Session) (revocations []counterfoil.Revocation, inserted *counterfoil.Session, err error) {
	switch n {
	case 0, 1:
		snap, err := e.sessions.Insert(e.ctx, e.session(subject))
		return nil, &snap.Session, wrap("Insert", err)
	case 2:
		ended, err := e.sessions.End(e.ctx, endRequest(s.ID))
		return ended.Revocations, nil, wrap("End", err)
	case 3, 4, 5:
		a := []counterfoil.Advance{signOut(subject), others(subject, s.ID), rightsOnly(subject)}[n-3]
		done, err := e.sessions.Advance(e.ctx, a)
		if err != nil {
			return nil, nil, wrap("Advance", err)
		}
		return []counterfoil.Revocation{done.Revocation}, nil, nil
	case 6, 7:
		_, revocations, err := e.sessions.Update(e.ctx, s.ID, retain, func(row *counterfoil.Session) (bool, error) {
			row.Methods = []string{"pwd", "otp"}
			return n == 6, nil
		})
		return revocations, nil, wrap("Update", err)
	case 8:
		return nil, nil, wrap("Touch", e.sessions.Touch(e.ctx, []counterfoil.Touch{{ID: s.ID, At: s.LastActiveAt.Add(time.Second)}}))
	default:
		snap, err := e.sessions.Snapshot(e.ctx, s.ID)
		if err == nil && snap.Session.End == nil && snap.Session.Epoch0 < snap.Subject.SignedOutBelow {
			err = errors.New("session and subject are not of one moment")
		}
		return nil, nil, wrap("Snapshot", err)
	}
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
