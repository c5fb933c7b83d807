package counterfoil_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

func TestSEC11StepUpReplacesTheSessionToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := memory(t)
		defer a.Close()
		g := signIn(t, a, "alice")
		time.Sleep(time.Hour)
		s, err := a.Authenticate(t.Context(), g.SessionToken.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		up, err := a.Reauthenticated(t.Context(), nil, s, []string{"pwd", "otp"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := check(t, a, up.AccessToken, verify.MaxAuthAge(time.Minute)); err != nil {
			t.Errorf("a fresh factor: %v", err)
		}
		wantEnded(t, a, g, counterfoil.ErrSessionUnknown, "") // the predecessor is dead, the session is not
		refresh(t, a, up)
		// A second step-up that checked the credential against the old secret comes too late.
		_, err = a.Reauthenticated(t.Context(), nil, s, []string{"pwd"})
		wantErr(t, err, counterfoil.ErrSessionUnknown)
		if err := a.RevokeSession(t.Context(), s.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		s.SecretHash = up.Session.SecretHash
		_, err = a.Reauthenticated(t.Context(), nil, s, []string{"pwd"})
		wantErr(t, err, counterfoil.ErrSessionRevoked)
	})
}
