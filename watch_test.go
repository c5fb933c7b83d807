package counterfoil_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/storetest/engine"
	"github.com/counterfoil/counterfoil/verify"
)

// readStore counts the reads of sessions, and lets a test do something right
// after one, before its result is known to who asked.
type readStore struct {
	engine.Store
	reads atomic.Int64
	after atomic.Pointer[func() error]
}

func (s *readStore) Sessions() counterfoil.SessionStore { return readSessions{s.Store.Sessions(), s} }

type readSessions struct {
	counterfoil.SessionStore
	store *readStore
}

func (s readSessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	s.store.reads.Add(1)
	snap, err := s.SessionStore.Snapshot(ctx, id)
	if after := s.store.after.Load(); after != nil {
		if err := (*after)(); err != nil {
			return counterfoil.Snapshot{}, err
		}
	}
	return snap, err
}

func (s *readStore) once(f func() error) {
	s.after.Store(new(func() error { s.after.Store(nil); return f() }))
}

func watch(t *testing.T, a *counterfoil.Authority, g *counterfoil.Grant) *counterfoil.SessionWatch {
	t.Helper()
	w, err := a.WatchSession(t.Context(), g.Session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// quiet checks that nothing happens to the session for d.
func quiet(t *testing.T, w *counterfoil.SessionWatch, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("within %s: %v, want nothing", d, err)
	}
}

func wantEnd(t *testing.T, w *counterfoil.SessionWatch, cause error, reason counterfoil.Reason) {
	t.Helper()
	err := w.Wait(t.Context())
	var ended *counterfoil.EndedError
	if !errors.As(err, &ended) || !errors.Is(err, cause) || ended.Reason != reason {
		t.Errorf("%v, want %v because of %q", err, cause, reason)
	}
}

func TestAWatchEndsWithItsSession(t *testing.T) {
	for name, tt := range map[string]struct {
		end    func(a *counterfoil.Authority, g *counterfoil.Grant) error
		cause  error
		reason counterfoil.Reason
		within time.Duration
	}{
		"revoked": {func(a *counterfoil.Authority, g *counterfoil.Grant) error {
			return a.RevokeSession(context.Background(), g.Session.ID, counterfoil.SignedOut)
		}, counterfoil.ErrSessionRevoked, counterfoil.SignedOut, time.Second},
		"everywhere": {func(a *counterfoil.Authority, g *counterfoil.Grant) error {
			return a.RevokeSubject(context.Background(), g.Session.Subject, counterfoil.PasswordReset)
		}, counterfoil.ErrSessionRevoked, counterfoil.PasswordReset, time.Second},
		"another one kept": {func(a *counterfoil.Authority, g *counterfoil.Grant) error {
			other, err := a.StartSession(context.Background(), counterfoil.SignIn{Subject: g.Session.Subject})
			return errors.Join(err, a.RevokeSubject(context.Background(), g.Session.Subject, counterfoil.PasswordChanged, counterfoil.Except(other.Session.ID)))
		}, counterfoil.ErrSessionRevoked, counterfoil.PasswordChanged, time.Second},
		"unused": {func(*counterfoil.Authority, *counterfoil.Grant) error { return nil }, counterfoil.ErrSessionExpired, "", counterfoil.Strict.Idle + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := open(t, nil, func(c *counterfoil.Config) { c.Lifetimes = counterfoil.Strict })
				defer a.Close()
				g := signIn(t, a, "alice")
				w := watch(t, a, g)
				quiet(t, w, time.Minute)
				began := time.Now()
				if err := tt.end(a, g); err != nil {
					t.Fatal(err)
				}
				wantEnd(t, w, tt.cause, tt.reason)
				if took := time.Since(began); took > tt.within {
					t.Errorf("told after %s", took)
				}
				_, err := a.WatchSession(t.Context(), g.Session)
				wantErr(t, err, tt.cause)
				w.Stop()
				w.Stop()
				if n := a.Stats().Watches; n != 0 {
					t.Errorf("%d watches are left", n)
				}
			})
		})
	}
}

// Nothing is read while nothing happens; use moves the idle expiry; the
// absolute one stands.
func TestAWatchReadsTheStoreWhenItIsDueOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &readStore{Store: newStore(t)}
		a := open(t, store, func(c *counterfoil.Config) { c.Lifetimes = counterfoil.Strict })
		defer a.Close()
		g := signIn(t, a, "alice")
		w := watch(t, a, g)
		for began := time.Now(); time.Since(began) < 11*time.Hour+50*time.Minute; {
			refresh(t, a, g)
			quiet(t, w, 10*time.Minute)
		}
		refresh(t, a, g)
		if n := store.reads.Load(); n > 4*72 {
			t.Errorf("%d reads in 12 hours, 72 of them refreshes", n)
		}
		wantEnd(t, w, counterfoil.ErrSessionExpired, "")
		if age := time.Since(g.Session.CreatedAt); age < 12*time.Hour || age > 12*time.Hour+time.Second {
			t.Errorf("ended after %s", age)
		}
	})
}

func TestAWatchTellsOfChangedRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &readStore{Store: newStore(t)}
		a := open(t, store, nil)
		defer a.Close()
		g := signIn(t, a, "alice")
		w := watch(t, a, g)
		before := w.Epoch()
		if err := a.RightsChanged(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if err := w.Wait(t.Context()); err != nil || w.Epoch() <= before {
			t.Errorf("rights changed: %v, epoch %d", err, w.Epoch())
		}
		quiet(t, w, time.Minute) // the log tells of it again
		for _, change := range []error{
			a.RevokeSubject(t.Context(), "alice", counterfoil.SignedOutEverywhere, counterfoil.Except(g.Session.ID)),
			a.RightsChanged(t.Context(), "alice"), a.RightsChanged(t.Context(), "alice"),
		} {
			if change != nil {
				t.Fatal(change)
			}
		}
		if err := w.Wait(t.Context()); err != nil {
			t.Errorf("the kept session, and several changes: %v", err)
		}
		quiet(t, w, time.Minute)
		signIn(t, a, "bob")
		reads := store.reads.Load()
		if err := a.RevokeSubject(t.Context(), "bob", counterfoil.Revoked); err != nil {
			t.Fatal(err)
		}
		quiet(t, w, time.Minute)
		if store.reads.Load() != reads {
			t.Error("what happens to others is looked into")
		}
		// A subject whose rights change without end is read ten times a second.
		for range 1000 {
			if err := a.RightsChanged(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			if err := w.Wait(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if n := store.reads.Load() - reads; n > 40 {
			t.Errorf("%d reads within a second of changes", n)
		}
	})
}

// The session ends while the watch is made: after the caller read it, and
// after the watch itself did.
func TestAWatchMissesNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &readStore{Store: newStore(t)}
		a := open(t, store, nil)
		defer a.Close()
		g := signIn(t, a, "alice")
		end := func() error {
			defer time.Sleep(time.Second) // the log has told of it too
			return a.RevokeSession(context.Background(), g.Session.ID, counterfoil.Revoked)
		}

		store.once(end)
		w := watch(t, a, g)
		wantEnd(t, w, counterfoil.ErrSessionRevoked, counterfoil.Revoked)

		g = signIn(t, a, "bob")
		if err := end(); err != nil {
			t.Fatal(err)
		}
		_, err := a.WatchSession(t.Context(), g.Session)
		wantErr(t, err, counterfoil.ErrSessionRevoked)

		// Rights that change then are told too.
		g = signIn(t, a, "carol")
		store.once(func() error {
			defer time.Sleep(time.Second)
			return a.RightsChanged(context.Background(), "carol")
		})
		if err := watch(t, a, g).Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if n := a.Stats().Watches; n != 2 {
			t.Errorf("%d watches", n)
		}
	})
}

func TestAWatchOutlivesTroubleOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &readStore{Store: newStore(t)}
		a := open(t, store, nil)
		defer a.Close()
		g := signIn(t, a, "alice")
		w := watch(t, a, g)
		down := errors.New("the store is down")
		store.after.Store(new(func() error { return down }))
		if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		reads := store.reads.Load()
		quiet(t, w, time.Minute) // only the store's word ends a session
		if n := store.reads.Load() - reads; n < 10 || n > 40 {
			t.Errorf("%d attempts in a minute", n)
		}
		_, err := a.WatchSession(t.Context(), g.Session)
		wantErr(t, err, verify.ErrUnavailable)
		store.after.Store(nil)
		began := time.Now()
		wantEnd(t, w, counterfoil.ErrSessionRevoked, counterfoil.SignedOut)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("told %s after the store was back", took)
		}
	})
}

func TestWatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, nil, func(c *counterfoil.Config) { c.MaxWatches = 15 })
		g := signIn(t, a, "alice")
		var held []*counterfoil.SessionWatch
		for range 10 {
			held = append(held, watch(t, a, g))
		}
		_, err := a.WatchSession(t.Context(), g.Session)
		var limited *counterfoil.RateLimitedError
		if !errors.As(err, &limited) || limited.RetryAfter <= 0 {
			t.Errorf("the eleventh of a session: %v", err)
		}
		held[3].Stop()
		watch(t, a, g)
		for _, subject := range []string{"a", "b", "c", "d", "e"} {
			watch(t, a, signIn(t, a, subject))
		}
		_, err = a.WatchSession(t.Context(), signIn(t, a, "f").Session)
		var full *verify.Error
		if !errors.As(err, &full) || !errors.Is(err, verify.ErrUnavailable) || full.RetryAfter < 15*time.Second {
			t.Errorf("the sixteenth of all: %v", err)
		}
		if n := a.Stats().Watches; n != 15 {
			t.Errorf("%d watches", n)
		}
		a.Close()
		wantErr(t, held[0].Wait(t.Context()), verify.ErrUnavailable)
		_, err = counterfoil.New(t.Context(), newStore(t), func() counterfoil.Config { c := baseConfig(); c.MaxWatches = -1; return c }())
		var field *counterfoil.FieldError
		if !errors.As(err, &field) || field.Field != "MaxWatches" {
			t.Error(err)
		}
	})
}

// One user cannot take the places of all, however many sessions they start.
func TestWatchesOfASubjectAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, nil, nil)
		var held []*counterfoil.SessionWatch
		for range 10 {
			g := signIn(t, a, "alice")
			for range 10 {
				held = append(held, watch(t, a, g))
			}
		}
		more := signIn(t, a, "alice")
		_, err := a.WatchSession(t.Context(), more.Session)
		var limited *counterfoil.RateLimitedError
		if !errors.As(err, &limited) || limited.RetryAfter <= 0 {
			t.Errorf("the hundred and first of a subject: %v", err)
		}
		watch(t, a, signIn(t, a, "ben"))
		held[42].Stop()
		watch(t, a, more)
	})
}

// Another node ends the session: this one hears of it from the log.
func TestAWatchHearsOfOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		seal := newSeal()
		same := func(c *counterfoil.Config) { c.Seal = seal }
		here, there := open(t, store, same), open(t, store, same)
		defer there.Close()
		defer here.Close()
		g, other := signIn(t, here, "alice"), signIn(t, there, "bob")
		w, wOther := watch(t, here, g), watch(t, here, other)
		began := time.Now()
		if err := errors.Join(there.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOutEverywhere), there.RightsChanged(t.Context(), "bob")); err != nil {
			t.Fatal(err)
		}
		wantEnd(t, w, counterfoil.ErrSessionRevoked, counterfoil.SignedOutEverywhere)
		if err := wOther.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("told after %s", took)
		}
	})
}

// A watch ends with the session token that it was opened with, without calling
// the session ended: whoever had the old token learns nothing any more.
func TestAWatchEndsWithItsSessionToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g := signIn(t, a, "alice")
		w := watch(t, a, g)
		up, err := a.Reauthenticated(t.Context(), nil, g.Session, []string{"pwd"})
		if err != nil {
			t.Fatal(err)
		}
		err = w.Wait(t.Context())
		if ended := (*counterfoil.EndedError)(nil); !errors.Is(err, verify.ErrUnavailable) || errors.As(err, &ended) {
			t.Errorf("the token was replaced: %v", err)
		}
		quiet(t, watch(t, a, up), time.Minute)
	})
}

// That a session token was replaced is in no log: a watch of the old one at
// another node finds out when it looks, within a quarter of an hour (SEC-11).
func TestAWatchOfATokenThatAnotherNodeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		seal := newSeal()
		same := func(c *counterfoil.Config) { c.Seal = seal }
		here, there := open(t, store, same), open(t, store, same)
		defer there.Close()
		defer here.Close()
		g := signIn(t, here, "alice")
		w := watch(t, here, g)
		s, err := there.Authenticate(t.Context(), g.SessionToken.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		next, err := there.Reauthenticated(t.Context(), nil, s, []string{"pwd"})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		wantErr(t, w.Wait(t.Context()), verify.ErrUnavailable)
		if took := time.Since(began); took > 15*time.Minute+time.Second {
			t.Errorf("it went on for %s", took)
		}
		watch(t, here, next)
	})
}
