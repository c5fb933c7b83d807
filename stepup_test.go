package counterfoil_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

func TestSEC11StepUpReplacesTheSessionToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
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

func TestStepUpAnswersForPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told error
		a := open(t, nil, func(c *counterfoil.Config) {
			c.SignedOut = func(w http.ResponseWriter, r *http.Request, _ error) {
				http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
			}
			c.StepUp = func(w http.ResponseWriter, r *http.Request, err error) {
				told = err
				http.Redirect(w, r, "/step-up", http.StatusSeeOther)
			}
		})
		defer a.Close()
		g := signIn(t, a, "alice")
		careful := a.Browser(verify.MaxAuthAge(10 * time.Minute))(hello)
		jar := map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()}
		res := serve(careful, page("GET", jar))
		if res.StatusCode != 200 {
			t.Fatalf("just signed in: %d", res.StatusCode)
		}
		jar["__Host-counterfoil-at"] = accessCookie(res).Value

		time.Sleep(time.Hour)
		for _, method := range []string{"GET", "POST"} {
			res = serve(careful, page(method, jar, "Sec-Fetch-Site", "same-origin"))
			if res.StatusCode != 303 || res.Header.Get("Location") != "/step-up" || res.Header.Get("Cache-Control") != "private, no-store" {
				t.Errorf("%s an hour later: %d %v", method, res.StatusCode, res.Header)
			}
		}
		var refused *verify.Error
		if !errors.As(told, &refused) || refused.MaxAge != 10*time.Minute {
			t.Errorf("the page is told %v", told)
		}
		// Other refusals are none of its business, and neither are clients that bring a token themselves.
		if res = serve(careful, page("GET", nil)); res.Header.Get("Location") != "/sign-in" {
			t.Errorf("nobody signed in: %d %v", res.StatusCode, res.Header)
		}
		if res = serve(a.Browser(verify.Role("admin"))(hello), page("GET", jar)); res.StatusCode != 403 {
			t.Errorf("a role that is missing: %d", res.StatusCode)
		}
		fresh := refresh(t, a, g)
		if res = serve(careful, page("GET", jar, "Authorization", "Bearer "+fresh.AccessToken)); res.StatusCode != 401 {
			t.Errorf("a Bearer token: %d", res.StatusCode)
		}

		s, err := a.Authenticate(t.Context(), g.SessionToken.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		up, err := a.Reauthenticated(t.Context(), nil, s, []string{"pwd"})
		if err != nil {
			t.Fatal(err)
		}
		// The old access token is still in the browser, and good: it is replaced all the same.
		jar["__Host-counterfoil"], jar["__Host-counterfoil-at"] = up.SessionToken.Reveal(), fresh.AccessToken
		if res = serve(careful, page("GET", jar)); res.StatusCode != 200 || accessCookie(res) == nil {
			t.Errorf("after step-up: %d", res.StatusCode)
		}
	})
}

// RFC 9470 section 3: what a client needs to step up and repeat the request is
// in the challenge and, for scripts, in the body.
func TestStepUpChallengeOfPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g := signIn(t, a, "alice")
		time.Sleep(time.Hour)
		fresh := refresh(t, a, g)
		h := a.Browser(verify.MaxAuthAge(90*time.Second + time.Millisecond))(hello)
		for name, r := range map[string]*http.Request{
			"cookies": page("GET", map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()}),
			"bearer":  page("GET", nil, "Authorization", "Bearer "+fresh.AccessToken),
		} {
			res := serve(h, r)
			const challenge = `Bearer realm="counterfoil", error="insufficient_user_authentication", error_description="This resource asks for a more recent or stronger authentication.", max_age="91"`
			if got := res.Header.Get("WWW-Authenticate"); res.StatusCode != 401 || got != challenge {
				t.Errorf("%s: %d %q", name, res.StatusCode, got)
			}
			var body struct {
				Code   string
				MaxAge int `json:"max_age"`
			}
			if err := json.NewDecoder(res.Body).Decode(&body); err != nil || body.Code != "insufficient_user_authentication" || body.MaxAge != 91 {
				t.Errorf("%s: %+v %v", name, body, err)
			}
		}
	})
}
