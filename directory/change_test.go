package directory_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

// check verifies an access token in this process.
func (e *env) check(g *counterfoil.Grant) error {
	e.t.Helper()
	v, err := e.auth.Verifier("app")
	if err != nil {
		e.t.Fatal(err)
	}
	_, err = v.Check(context.Background(), g.AccessToken)
	return err
}

func (e *env) ended(g *counterfoil.Grant, reason counterfoil.Reason) {
	e.t.Helper()
	var end *counterfoil.EndedError
	if err := e.alive(g); !errors.As(err, &end) || end.Reason != reason {
		e.t.Errorf("the session token: %v, want an end with reason %s", err, reason)
	}
	if err := e.check(g); !errors.Is(err, verify.ErrTokenRevoked) {
		e.t.Errorf("the access token: %v", err)
	}
}

// SEC-29, SEC-86: a password change needs the current one and ends all other sessions.
func TestSEC29ChangePassword(t *testing.T) {
	e := setup(t, nil)
	u := e.user("ada@example.com")
	here, there := e.grant("ada@example.com", goodPassword, "192.0.2.1"), e.grant("ada@example.com", goodPassword, "192.0.2.2")
	reset, _, err := e.NewPasswordReset(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	e.clock.advance(20 * time.Second)
	change := func(current, next string) (*counterfoil.Grant, error) {
		return e.ChangePassword(t.Context(), here.SessionToken.Reveal(), current, next, from("192.0.2.1"))
	}
	var field *counterfoil.FieldError
	if _, err := change(otherPassword, otherPassword); !errors.Is(err, counterfoil.ErrInvalidCredentials) {
		t.Errorf("a wrong current password: %v", err)
	}
	if _, err := change(goodPassword, "too short"); !errors.As(err, &field) || field.Field != "new" {
		t.Errorf("a bad new password: %v", err)
	}
	if _, err := change("", otherPassword); !errors.As(err, &field) || field.Field != "current" {
		t.Errorf("no current password: %v", err)
	}
	if err := errors.Join(e.alive(here), e.alive(there)); err != nil {
		t.Fatalf("refused changes ended a session: %v", err)
	}
	fresh, err := change(goodPassword, otherPassword)
	if err != nil {
		t.Fatal(err)
	}
	e.ended(there, counterfoil.PasswordChanged)
	if err := e.alive(here); !errors.Is(err, counterfoil.ErrSessionUnknown) {
		t.Errorf("the old session token: %v", err)
	}
	if err := e.check(here); !errors.Is(err, verify.ErrTokenStale) {
		t.Errorf("the old access token of the kept session: %v", err)
	}
	if err := errors.Join(e.alive(fresh), e.check(fresh)); err != nil {
		t.Errorf("the new grant: %v", err)
	}
	if fresh.Session.ID != here.Session.ID || !fresh.Session.AuthTime.Equal(e.clock.now()) {
		t.Errorf("session %+v", fresh.Session)
	}
	if err := e.ResetPassword(t.Context(), reset.Reveal(), goodPassword, nil); !errors.As(err, &field) || field.Field != "token" {
		t.Errorf("the reset token outlived the change: %v", err)
	}
	if err := e.try("ada@example.com", goodPassword, "192.0.2.1"); !errors.Is(err, counterfoil.ErrInvalidCredentials) {
		t.Errorf("the old password: %v", err)
	}
	e.grant("ada@example.com", otherPassword, "192.0.2.1")
}

// Of parallel changes with one current password one wins, and its session lives.
func TestParallelChanges(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	var grants []*counterfoil.Grant
	for range 8 {
		grants = append(grants, e.grant("ada@example.com", goodPassword, "192.0.2.1"))
	}
	won := make(chan *counterfoil.Grant, len(grants))
	var all sync.WaitGroup
	for _, g := range grants {
		all.Go(func() {
			fresh, err := e.ChangePassword(context.Background(), g.SessionToken.Reveal(), goodPassword, otherPassword, nil)
			switch {
			case err == nil:
				won <- fresh
			case !errors.Is(err, counterfoil.ErrInvalidCredentials) && !errors.Is(err, counterfoil.ErrSessionRevoked):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Fatalf("%d changes won", len(won))
	}
	if err := e.alive(<-won); err != nil {
		t.Error(err)
	}
}

// SEC-11, SEC-18: step-up makes auth_time now and replaces the session token.
func TestSEC18StepUp(t *testing.T) {
	e := setup(t, nil)
	e.user("ada@example.com")
	g := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	other := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	e.clock.advance(20 * time.Minute)
	if _, err := e.StepUp(t.Context(), g.SessionToken.Reveal(), otherPassword, nil); !errors.Is(err, counterfoil.ErrInvalidCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := e.StepUp(t.Context(), "cf_st_nonsense", goodPassword, nil); !errors.Is(err, counterfoil.ErrSessionUnknown) {
		t.Errorf("no session: %v", err)
	}
	fresh, err := e.StepUp(t.Context(), g.SessionToken.Reveal(), goodPassword, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := fresh.Session; s.ID != g.Session.ID || !s.AuthTime.Equal(e.clock.now()) || len(s.Methods) != 1 || s.Methods[0] != "pwd" {
		t.Errorf("session %+v", s)
	}
	if err := e.alive(g); !errors.Is(err, counterfoil.ErrSessionUnknown) {
		t.Errorf("the old session token: %v", err)
	}
	if err := errors.Join(e.alive(fresh), e.check(fresh), e.alive(other)); err != nil {
		t.Error(err)
	}
}

// A step-up that checked the old password gains nothing from a session whose
// secret a password change has replaced, or that it has ended.
func TestStepUpRacesPasswordChange(t *testing.T) {
	e := setup(t, func(c *directory.Config) { c.MaxParallelHashes = 8 })
	e.user("ada@example.com")
	current, next := goodPassword, otherPassword
	for range 40 {
		g := e.grant("ada@example.com", current, "192.0.2.1")
		var up, changed *counterfoil.Grant
		var upErr, changeErr error
		var all sync.WaitGroup
		all.Go(func() { up, upErr = e.StepUp(context.Background(), g.SessionToken.Reveal(), current, nil) })
		all.Go(func() {
			changed, changeErr = e.ChangePassword(context.Background(), g.SessionToken.Reveal(), current, next, nil)
		})
		all.Wait()
		switch {
		case changeErr == nil:
			if err := e.alive(changed); err != nil {
				t.Fatalf("the change's grant: %v (step-up: %v)", err, upErr)
			}
			if upErr == nil && e.alive(up) == nil {
				t.Fatal("two session tokens of one session are alive")
			}
			current, next = next, current
		case errors.Is(changeErr, counterfoil.ErrSessionUnknown):
			if upErr != nil {
				t.Fatalf("nobody won: %v, %v", upErr, changeErr)
			}
		default:
			t.Fatal(changeErr)
		}
	}
}

// SEC-87: a reset token is single-use, short-lived, bound to the account, and
// ends all sessions; it signs nobody in.
func TestSEC87Reset(t *testing.T) {
	e := setup(t, nil)
	u := e.user("ada@example.com")
	e.user("grace@example.com")
	make := func() string {
		token, expires, err := e.NewPasswordReset(t.Context(), u.ID)
		if err != nil || !expires.Equal(e.clock.now().Add(30*time.Minute)) {
			t.Fatal(expires, err)
		}
		return token.Reveal()
	}
	bad := func(token, next, field string) {
		t.Helper()
		err := e.ResetPassword(t.Context(), token, next, nil)
		var f *counterfoil.FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("got %v, want a refusal of %s", err, field)
		}
	}
	g := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	first := make()
	second := make()
	bad(first, otherPassword, "token") // replaced
	bad("cf_pr_nonsense", otherPassword, "token")
	bad(g.SessionToken.Reveal(), otherPassword, "token")
	bad(second, "too short", "new")
	stored, err := e.users.User(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	if stored.ResetHash == [32]byte{} {
		t.Error("a refused new password used the token up")
	}
	if err := e.alive(g); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(29 * time.Minute)
	if err := e.ResetPassword(t.Context(), second, otherPassword, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.alive(g); !errors.Is(err, counterfoil.ErrSessionRevoked) {
		t.Errorf("a session survived: %v", err)
	}
	bad(second, goodPassword, "token") // used
	e.grant("ada@example.com", otherPassword, "192.0.2.1")
	e.grant("grace@example.com", goodPassword, "192.0.2.1")

	late := make()
	e.clock.advance(30 * time.Minute)
	bad(late, goodPassword, "token")

	token := make()
	var all sync.WaitGroup
	won := 0
	var mu sync.Mutex
	for range 8 {
		all.Go(func() {
			if e.ResetPassword(context.Background(), token, goodPassword, nil) == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("one token was used %d times", won)
	}
	if _, _, err := e.NewPasswordReset(t.Context(), "nobody"); !errors.Is(err, counterfoil.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, _, err := e.NewPasswordReset(t.Context(), g.Session.ID); !errors.Is(err, counterfoil.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	gone := make()
	if err := e.Delete(t.Context(), u.ID, "operator"); err != nil {
		t.Fatal(err)
	}
	bad(gone, goodPassword, "token")
}
