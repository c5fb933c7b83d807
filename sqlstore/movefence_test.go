package sqlstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// atFence runs a move and fn while its fence stands, and gives the move up.
func atFence(t *testing.T, from, to side, fn func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m, reached := newMove(t, from, to), false
	m.Progress = func(p sqlstore.MoveProgress) {
		if p.Phase == sqlstore.MoveFenced && p.Table != "" && !reached {
			reached = true
			fn()
			cancel()
		}
	}
	if _, err := m.Run(ctx); !errors.Is(err, context.Canceled) || !reached {
		t.Fatalf("the move ended with %v (fence reached: %v)", err, reached)
	}
}

// While the fence stands reads go on and every write is refused as what it is:
// not as a conflict, not as an end of a session. After it all is as before.
func TestMoveFence(t *testing.T) {
	for name, from := range sides {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			old, to := from(t), sides["SQLite"](t)
			store := opened(t, old.store(old.db))
			all := store.Sessions()
			one := insert(t, all, session("ann"))
			user := directory.User{ID: "u1", Email: "ann@example.org", EmailKey: "ann@example.org", Password: "x", CreatedAt: time.Now(), UpdatedAt: time.Now()}
			writes := map[string]func() error{
				"sign-in":        func() error { _, err := all.Insert(ctx, session("ann")); return err },
				"first sign-in":  func() error { _, err := all.Insert(ctx, session("bob")); return err },
				"revocation":     func() error { _, err := all.End(ctx, endRequest(one.Session.ID)); return err },
				"sign-out":       func() error { _, err := all.Advance(ctx, signOut("ann")); return err },
				"first sign-out": func() error { _, err := all.Advance(ctx, signOut("eve")); return err },
				"touch": func() error {
					return all.Touch(ctx, []counterfoil.Touch{{ID: one.Session.ID, At: time.Now().Add(time.Minute)}})
				},
				"update": func() error {
					_, _, err := all.Update(ctx, one.Session.ID, time.Minute, func(s *counterfoil.Session) (bool, error) { s.Device.IP = "::1"; return true, nil })
					return err
				},
				"keys": func() error {
					_, _, err := store.Catalog().UpdateKeys(ctx, time.Minute, func(r *counterfoil.KeyRing) error {
						r.Keys = append(r.Keys, counterfoil.KeyRecord{ID: "k", Algorithm: "ES256", State: counterfoil.KeyActive, Public: []byte{1}, CreatedAt: time.Now()})
						return nil
					})
					return err
				},
				"API key": func() error {
					return store.Catalog().CreateAPIKey(ctx, counterfoil.APIKey{ID: "a", Name: "a", CreatedAt: time.Now()})
				},
				"user": func() error { return store.Users().Create(ctx, user) },
			}
			atFence(t, old, to, func() {
				for what, write := range writes {
					err := write()
					if !errors.Is(err, counterfoil.ErrStoreMoving) || !errors.Is(err, counterfoil.ErrStoreUnavailable) || errors.Is(err, counterfoil.ErrConflict) {
						t.Errorf("%s: %v", what, err)
					}
				}
				if got := status(t, all, one.Session.ID); got != counterfoil.StatusActive {
					t.Errorf("the session is %s", got)
				}
				if lifted, err := store.LiftFence(ctx, 30*time.Second); lifted || err != nil {
					t.Errorf("a fence that is looked after was lifted: %v %v", lifted, err)
				}
			})
			state, err := store.MoveState(ctx)
			if err != nil || state.Role != "" {
				t.Errorf("after the move was given up: %+v %v", state, err)
			}
			delete(writes, "revocation") // what ends the session comes last
			for what, write := range writes {
				if what != "update" && what != "touch" {
					if err := write(); err != nil {
						t.Errorf("%s after the fence: %v", what, err)
					}
				}
			}
		})
	}
}

// A node lifts a fence whose command was killed, and a command that was only
// slow notices before it switches.
func TestMoveNoticesLiftedFence(t *testing.T) {
	for name, from := range sides {
		t.Run(name, func(t *testing.T) {
			old, to := from(t), sides["SQLite"](t)
			store := opened(t, old.store(old.db))
			insert(t, store.Sessions(), session("ann"))
			m, fences := newMove(t, old, to), 0
			m.Progress = func(p sqlstore.MoveProgress) {
				if p.Phase != sqlstore.MoveFenced || p.Table != "" {
					return
				}
				if fences++; fences == 1 {
					if lifted, err := store.LiftFence(t.Context(), 0); !lifted || err != nil {
						t.Errorf("%v %v", lifted, err)
					}
					insert(t, store.Sessions(), session("late")) // would be lost
				}
			}
			report, err := m.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if report.Fences != 2 {
				t.Errorf("%d fences, want a second one", report.Fences)
			}
			moved := opened(t, to.store(to.db))
			list, _, err := moved.Sessions().List(t.Context(), counterfoil.ListQuery{Limit: 10})
			if err != nil || len(list) != 2 {
				t.Errorf("%d sessions on the new side %v", len(list), err)
			}
		})
	}
}

// What the last pass cannot do within the bound, it does not do at all.
func TestMoveFenceAtMost(t *testing.T) {
	old, to := sides["SQLite"](t), sides["SQLite"](t)
	store := opened(t, old.store(old.db))
	insert(t, store.Sessions(), session("ann"))
	m := newMove(t, old, to)
	m.FenceAtMost = 30 * time.Millisecond
	m.Progress = func(p sqlstore.MoveProgress) {
		if p.Phase == sqlstore.MoveFenced && p.Table == "" {
			time.Sleep(2 * m.FenceAtMost)
		}
	}
	_, err := m.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "writes are allowed") {
		t.Fatal(err)
	}
	usable(t, old)
	refuses(t, to, "not finished")
}

// A row that PostgreSQL would refuse is named before anything is fenced.
func TestMoveNamesBadRows(t *testing.T) {
	old, to := sides["SQLite"](t), sides["PostgreSQL"](t)
	store := opened(t, old.store(old.db))
	bad := session("ann")
	bad.Device.UserAgent = "a\x00b"
	insert(t, store.Sessions(), bad)
	const want = `table sessions, row with sid "`
	plan, err := newMove(t, old, to).Plan(t.Context())
	if err != nil || len(plan.Problems) != 1 || !strings.Contains(plan.Problems[0], want+bad.ID) || !strings.Contains(plan.Problems[0], "user_agent") {
		t.Errorf("the plan says %q %v", plan.Problems, err)
	}
	report, err := newMove(t, old, to).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), want+bad.ID) || report.Fences != 0 {
		t.Errorf("the move says %v, with %d fences", err, report.Fences)
	}
	usable(t, old)
}

// A database in use is not overwritten, and a moved one is no source.
func TestMoveRefusesWhatIsUsed(t *testing.T) {
	for name, target := range sides {
		t.Run(name, func(t *testing.T) {
			old, to := sides["SQLite"](t), target(t)
			insert(t, opened(t, old.store(old.db)).Sessions(), session("ann"))
			insert(t, opened(t, to.store(to.db)).Sessions(), session("bob"))
			if _, err := newMove(t, old, to).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is in use (there are rows in subjects, sessions)") {
				t.Error(err)
			}
			usable(t, old)
			usable(t, to)
			other := sides["SQLite"](t)
			if _, err := newMove(t, old, other).Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := newMove(t, old, sides["SQLite"](t)).Run(t.Context()); !errors.Is(err, counterfoil.ErrStoreMoved) {
				t.Error(err)
			}
		})
	}
}
