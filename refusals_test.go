package counterfoil_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// What Browser refuses is counted once, by code, whoever answers: a problem, a
// hook, or the way of clients that bring a token themselves.
func TestBrowserRefusalsAreCounted(t *testing.T) {
	for _, hooks := range []bool{false, true} {
		t.Run(fmt.Sprintf("hooks %v", hooks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore(t)
				a := open(t, store, func(c *counterfoil.Config) {
					if hooks {
						away := func(w http.ResponseWriter, r *http.Request, _ error) { http.Redirect(w, r, "/", http.StatusSeeOther) }
						c.SignedOut, c.StepUp = away, away
					}
				})
				defer a.Close()
				ann, bob := signIn(t, a, "ann"), signIn(t, a, "bob")
				cookies := func(g *counterfoil.Grant) map[string]string {
					return map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()}
				}
				user, careful := a.Browser()(hello), a.Browser(verify.MaxAuthAge(time.Minute))(hello)
				if err := a.RevokeSession(t.Context(), bob.Session.ID, counterfoil.SignedOut); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				fresh := refresh(t, a, ann).AccessToken
				for _, r := range []*http.Request{
					page("GET", cookies(ann)), page("GET", nil, "Authorization", "Bearer "+fresh), // let through
					page("GET", nil), page("GET", nil),
					page("GET", cookies(bob)),
					page("POST", cookies(ann), "Sec-Fetch-Site", "cross-site"),
					page("GET", nil, "Authorization", "Bearer x.y.z"),
					page("GET", nil, "Authorization", "Bearer "+ann.AccessToken),
				} {
					serve(user, r)
				}
				serve(careful, page("GET", cookies(ann)))
				serve(careful, page("GET", nil, "Authorization", "Bearer "+fresh))
				want := map[string]uint64{
					"credential_missing": 2, "session_revoked": 1, "invalid_request": 1, "token_invalid": 1, "token_expired": 1,
					"insufficient_user_authentication": 2,
				}
				if got := a.Stats().BrowserRefusals; !maps.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
			})
		})
	}
}

// A handler behind a Bearer token has the writer as it came.
func TestBrowserHandsTheWriterOn(t *testing.T) {
	a := authority(t)
	defer a.Close()
	g := signIn(t, a, "ann")
	rec := httptest.NewRecorder()
	a.Browser()(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if w != http.ResponseWriter(rec) {
			t.Errorf("a %T", w)
		}
	})).ServeHTTP(rec, page("GET", nil, "Authorization", "Bearer "+g.AccessToken))
	if rec.Code != http.StatusOK {
		t.Error(rec.Code)
	}
}
