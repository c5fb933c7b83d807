package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

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
