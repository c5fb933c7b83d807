package counterfoil_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

func TestRevokedIsRevoked(t *testing.T) { // SEC-26, SEC-31
	a := authority(t)
	g, other := signIn(t, a, "alice"), signIn(t, a, "alice")
	if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut, counterfoil.By("user")); err != nil {
		t.Fatal(err)
	}
	_, err := check(t, a, g.AccessToken)
	wantErr(t, err, verify.ErrTokenRevoked)
	_, err = check(t, a, g.AccessToken, verify.Live())
	wantErr(t, err, verify.ErrTokenRevoked)
	wantEnded(t, a, g, counterfoil.ErrSessionRevoked, counterfoil.SignedOut)
	_, err = a.Exchange(t.Context(), g.AccessToken, counterfoil.ExchangeRequest{})
	if err == nil {
		t.Error("exchanged the token of a revoked session")
	}
	// Again, and for nobody: no error, and a clear one.
	if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.Revoked); err != nil {
		t.Error(err)
	}
	wantEnded(t, a, g, counterfoil.ErrSessionRevoked, counterfoil.SignedOut)
	wantErr(t, a.RevokeSession(t.Context(), "nobody", counterfoil.Revoked), counterfoil.ErrNotFound)
	wantErr(t, a.RevokeSession(t.Context(), other.Session.ID, counterfoil.Revoked, counterfoil.Of("bob")), counterfoil.ErrNotFound)
	refresh(t, a, other)
}

func TestRevokeOthersKeepsOne(t *testing.T) {
	a := authority(t)
	here, there, bob := signIn(t, a, "alice"), signIn(t, a, "alice"), signIn(t, a, "bob")
	err := a.RevokeSubject(t.Context(), "alice", counterfoil.PasswordChanged, counterfoil.Except(here.Session.ID))
	if err != nil {
		t.Fatal(err)
	}
	_, err = check(t, a, there.AccessToken)
	wantErr(t, err, verify.ErrTokenRevoked)
	_, err = check(t, a, here.AccessToken)
	wantErr(t, err, verify.ErrTokenStale) // one refresh mends it
	if _, err = check(t, a, refresh(t, a, here).AccessToken); err != nil {
		t.Errorf("the kept session: %v", err)
	}
	wantEnded(t, a, there, counterfoil.ErrSessionRevoked, counterfoil.PasswordChanged)
	if _, err = check(t, a, bob.AccessToken); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	// A kept session that had ended is not brought back.
	if err := a.RevokeSession(t.Context(), here.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	if err := a.RevokeSubject(t.Context(), "alice", counterfoil.PasswordChanged, counterfoil.Except(here.Session.ID)); err != nil {
		t.Fatal(err)
	}
	wantEnded(t, a, here, counterfoil.ErrSessionRevoked, counterfoil.SignedOut)
}

func TestRightsFollowAtOnce(t *testing.T) {
	role := "admin"
	a := open(t, nil, func(c *counterfoil.Config) {
		c.Claims = func(context.Context, counterfoil.Session) (counterfoil.Claims, error) {
			return counterfoil.Claims{Roles: []string{role}}, nil
		}
	})
	g := signIn(t, a, "alice")
	role = "reader"
	if err := a.RightsChanged(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	_, err := check(t, a, g.AccessToken, verify.Role("admin"))
	wantErr(t, err, verify.ErrTokenStale)
	_, err = check(t, a, refresh(t, a, g).AccessToken, verify.Role("admin"))
	wantErr(t, err, verify.ErrInsufficientScope)
}

func TestSignInThatCheckedAnOldPasswordEnds(t *testing.T) {
	a := authority(t)
	epoch, err := a.Epoch(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	// … the password is checked here, and changed meanwhile by somebody else …
	if err := a.RevokeSubject(t.Context(), "alice", counterfoil.PasswordChanged); err != nil {
		t.Fatal(err)
	}
	_, err = a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Epoch: epoch})
	wantErr(t, err, counterfoil.ErrSignedOutMeanwhile)
	// Without the epoch the race is the application's.
	signIn(t, a, "alice")
}

// TestSEC28SignInRacesRevokeAll lets sign-ins run into a revocation of all.
// Whoever read the epoch before it must be out afterwards.
func TestSEC28SignInRacesRevokeAll(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	a := authority(t)
	for round := range 200 {
		before, err := a.Epoch(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		grants := make(chan *counterfoil.Grant, 8)
		var wg sync.WaitGroup
		revoke := rng.IntN(8)
		for i := range 8 {
			wg.Go(func() {
				if i == revoke {
					if err := a.RevokeSubject(t.Context(), "alice", counterfoil.PasswordChanged); err != nil {
						t.Error(err)
					}
					return
				}
				g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Epoch: before})
				if err == nil {
					grants <- g
				} else if !errors.Is(err, counterfoil.ErrSignedOutMeanwhile) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		close(grants)
		for g := range grants {
			wantEnded(t, a, g, counterfoil.ErrSessionRevoked, counterfoil.PasswordChanged)
			if _, err := check(t, a, g.AccessToken); !errors.Is(err, verify.ErrTokenRevoked) {
				t.Fatalf("round %d: the token of a sign-in that was overtaken: %v", round, err)
			}
		}
	}
}

func TestRefreshesRaceRevocation(t *testing.T) {
	a := authority(t)
	for range 50 {
		g := signIn(t, a, "alice")
		tokens := make(chan string, 64)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 4 {
					fresh, err := a.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
					if err != nil {
						wantErr(t, err, counterfoil.ErrSessionRevoked)
						return
					}
					tokens <- fresh.AccessToken
				}
			})
		}
		wg.Go(func() {
			if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		close(tokens)
		for token := range tokens {
			_, err := check(t, a, token)
			wantErr(t, err, verify.ErrTokenRevoked)
		}
	}
}

func TestRevocationsOutliveARestart(t *testing.T) {
	store := newStore(t)
	seal := newSeal()
	use := func(c *counterfoil.Config) { c.Seal = seal }
	first := open(t, store, use)
	g := signIn(t, first, "alice")
	if err := first.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	second := open(t, store, use)
	_, err := check(t, second, g.AccessToken)
	wantErr(t, err, verify.ErrTokenRevoked)
}

func TestEndingWhatAnotherNodeEndedTellsThisOne(t *testing.T) {
	store, seal := newStore(t), newSeal()
	use := func(c *counterfoil.Config) { c.Seal = seal }
	here, there := open(t, store, use), open(t, store, use)
	g := signIn(t, here, "alice")
	for _, a := range []*counterfoil.Authority{here, there} {
		if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		_, err := check(t, a, g.AccessToken)
		wantErr(t, err, verify.ErrTokenRevoked)
	}
}

func TestFeedLogHasEachRevocationAndCleansItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		a := open(t, store, nil)
		defer a.Close()
		g := signIn(t, a, "alice")
		for _, err := range []error{
			a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut),
			a.RevokeSubject(t.Context(), "alice", counterfoil.Revoked),
			a.RightsChanged(t.Context(), "bob"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		entries, err := store.Feed().Read(t.Context(), 0, 100)
		if err != nil || len(entries) != 3 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		for _, e := range entries {
			if left := time.Until(e.Until); left < time.Minute+15*time.Second || left > 2*time.Minute {
				t.Errorf("entry %+v is kept for %s", e, left)
			}
		}
		time.Sleep(3*time.Minute + time.Second) // a sweep lets others write first
		synctest.Wait()
		entries, err = store.Feed().Read(t.Context(), 0, 100)
		if err != nil || len(entries) != 0 {
			t.Errorf("%d entries are left, %v", len(entries), err)
		}
	})
}

func TestChangeSessionMakesItsTokensStale(t *testing.T) {
	a := authority(t)
	g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Roles: []string{"admin"}, Extra: map[string]any{"org": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	none := []string{}
	if _, err := a.ChangeSession(t.Context(), g.Session.ID, counterfoil.SessionChange{Roles: &none}); err != nil {
		t.Fatal(err)
	}
	_, err = check(t, a, g.AccessToken)
	wantErr(t, err, verify.ErrTokenStale)
	c, err := check(t, a, refresh(t, a, g).AccessToken)
	if err != nil || c.HasRole("admin") {
		t.Errorf("%+v, %v", c, err)
	}
	bad := map[string]any{"iss": "me"}
	_, err = a.ChangeSession(t.Context(), g.Session.ID, counterfoil.SessionChange{Extra: &bad})
	var field *counterfoil.FieldError
	if !errors.As(err, &field) {
		t.Errorf("got %v", err)
	}
}

func TestReasonsAreChecked(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	err := a.RevokeSession(t.Context(), g.Session.ID, "Because I say so")
	var field *counterfoil.FieldError
	if !errors.As(err, &field) || field.Field != "reason" {
		t.Errorf("got %v", err)
	}
	refresh(t, a, g)
}

func TestSEC14NoChangeRevivesASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g, err := a.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice", Absolute: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		longer := 24 * time.Hour
		_, err = a.ChangeSession(t.Context(), g.Session.ID, counterfoil.SessionChange{MaxAge: &longer})
		wantErr(t, err, counterfoil.ErrConflict)
		wantEnded(t, a, g, counterfoil.ErrSessionExpired, "")
	})
}
