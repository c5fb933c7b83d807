package directory_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

func ptr[T any](v T) *T { return &v }

func (e *env) update(id string, c directory.Change) directory.User {
	e.t.Helper()
	u, err := e.Update(e.t.Context(), id, c)
	if err != nil {
		e.t.Fatal(err)
	}
	return u
}

// Other rights are in the next access token; nobody signs in again.
func TestRights(t *testing.T) {
	e := setup(t, nil)
	u := e.user("ada@example.com")
	g := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	e.update(u.ID, directory.Change{})
	if err := e.check(g); err != nil {
		t.Fatalf("no change made the token %v", err)
	}
	got := e.update(u.ID, directory.Change{Roles: ptr([]string{"admin"}), Scope: ptr([]string{"orders:read", "orders:write"})})
	if !slices.Equal(got.Rights.Roles, []string{"admin"}) || got.Password != "" {
		t.Errorf("user %+v", got)
	}
	if err := e.check(g); !errors.Is(err, verify.ErrTokenStale) {
		t.Errorf("the old access token: %v", err)
	}
	fresh, err := e.auth.Refresh(t.Context(), g.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := e.auth.Verifier("app")
	if err != nil {
		t.Fatal(err)
	}
	claims, err := v.Check(t.Context(), fresh.AccessToken)
	if err != nil || !slices.Equal(claims.Roles, []string{"admin"}) {
		t.Errorf("%+v, %v", claims, err)
	}
	var field *counterfoil.FieldError
	if _, err := e.Update(t.Context(), u.ID, directory.Change{Scope: ptr([]string{"two words"})}); !errors.As(err, &field) || field.Field != "scope[0]" {
		t.Errorf("got %v", err)
	}
}

// SEC-30: disabling and deleting end all sessions; refresh is refused.
func TestSEC30Disable(t *testing.T) {
	e := setup(t, nil)
	u := e.user("ada@example.com")
	g := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	e.update(u.ID, directory.Change{Disabled: ptr(true), Actor: "operator", Roles: ptr([]string{"x"})})
	e.ended(g, counterfoil.Disabled)
	if err := e.try("ada@example.com", goodPassword, "192.0.2.1"); !errors.Is(err, counterfoil.ErrInvalidCredentials) {
		t.Errorf("got %v", err)
	}
	e.update(u.ID, directory.Change{Email: ptr("ada@example.org"), Actor: "operator"})
	e.update(u.ID, directory.Change{Disabled: ptr(false)})
	e.ended(g, counterfoil.Disabled)
	g = e.grant("ada@example.org", goodPassword, "192.0.2.1")
	if err := e.Delete(t.Context(), u.ID, "operator"); err != nil {
		t.Fatal(err)
	}
	e.ended(g, counterfoil.Deleted)
	if err := e.Delete(t.Context(), u.ID, "operator"); !errors.Is(err, counterfoil.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := e.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: u.ID}); !errors.Is(err, counterfoil.ErrSubjectDisabled) {
		t.Errorf("a session of a deleted user: %v", err)
	}
	if err := e.try("ada@example.org", goodPassword, "192.0.2.1"); !errors.Is(err, counterfoil.ErrInvalidCredentials) {
		t.Errorf("got %v", err)
	}
}

func TestEmailChange(t *testing.T) {
	e := setup(t, nil)
	u := e.user("ada@example.com")
	e.user("grace@example.com")
	g := e.grant("ada@example.com", goodPassword, "192.0.2.1")
	reset := func() string {
		token, _, err := e.NewPasswordReset(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		return token.Reveal()
	}
	token := reset()
	if _, err := e.Update(t.Context(), u.ID, directory.Change{Email: ptr("GRACE@example.com")}); !errors.Is(err, counterfoil.ErrConflict) {
		t.Errorf("got %v", err)
	}
	// The same address in other letters changes nothing of weight.
	e.update(u.ID, directory.Change{Email: ptr("Ada@Example.com")})
	if err := e.check(g); err != nil {
		t.Error(err)
	}
	e.update(u.ID, directory.Change{Email: ptr("ada@example.net"), KeepSessions: true})
	if err := e.check(g); err != nil {
		t.Error(err)
	}
	var field *counterfoil.FieldError
	if err := e.ResetPassword(t.Context(), token, otherPassword, nil); !errors.As(err, &field) {
		t.Errorf("the token in the old mailbox is still good: %v", err)
	}
	e.update(u.ID, directory.Change{Email: ptr("ada@example.org"), Roles: ptr([]string{"x"})})
	e.ended(g, directory.EmailChanged)
	if got := e.grant("ada@example.org", goodPassword, "192.0.2.1"); e.check(got) != nil {
		t.Error("cannot sign in with the new address")
	}
}

func TestUsers(t *testing.T) {
	e := setup(t, nil)
	var ids []string
	for i := range 7 {
		u, err := e.Create(t.Context(), directory.NewUser{Email: fmt.Sprintf("User%d@example.com", i), Password: goodPassword, Rights: counterfoil.Rights{Roles: []string{"member"}}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, u.ID)
	}
	if _, err := e.Create(t.Context(), directory.NewUser{Email: "uSer3@example.com"}); !errors.Is(err, counterfoil.ErrConflict) {
		t.Errorf("got %v", err)
	}
	var listed []string
	for after, pages := "", 0; pages == 0 || after != ""; pages++ {
		page, next, err := e.List(t.Context(), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page {
			listed = append(listed, u.ID)
			if u.Password != "" || u.ResetHash != [32]byte{} {
				t.Error("a list shows hashes")
			}
		}
		after = next
	}
	if !slices.Equal(listed, ids) {
		t.Errorf("listed %v, want %v", listed, ids)
	}
	got, err := e.ByEmail(t.Context(), " USER2@example.com ")
	if err != nil || got.ID != ids[2] || got.Password != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = e.Get(t.Context(), ids[2]); err != nil || got.Email != "User2@example.com" || got.Password != "" || got.CreatedAt.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := e.Get(t.Context(), "nobody"); !errors.Is(err, counterfoil.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	var field *counterfoil.FieldError
	if _, _, err := e.List(t.Context(), "", 0); !errors.As(err, &field) || field.Field != "limit" {
		t.Errorf("got %v", err)
	}
	if _, _, err := e.List(t.Context(), "nonsense", 3); !errors.Is(err, counterfoil.ErrInvalidCursor) {
		t.Errorf("got %v", err)
	}
}
