package counterfoiltest_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/counterfoiltest"
	"github.com/counterfoil/counterfoil/verify"
)

// A service under test: one route for everybody who is signed in, one for admins.
func service(v *verify.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /orders", v.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := verify.FromContext(r.Context())
		fmt.Fprintf(w, "orders of %s", claims.Subject)
	})))
	mux.Handle("DELETE /orders", v.Require(verify.Role("admin"), verify.Live())(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})))
	return mux
}

func do(h http.Handler, r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestAServiceInOneLine(t *testing.T) {
	auth := counterfoiltest.New(t)
	app := service(auth.Verify())
	alice := auth.SignIn("alice")
	admin := auth.SignIn("root", counterfoiltest.Roles("admin"))

	if code, body := do(app, auth.Request("GET", "/orders", alice)); code != 200 || body != "orders of alice" {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := do(app, auth.Request("DELETE", "/orders", alice)); code != 403 {
		t.Errorf("not an admin: %d", code)
	}
	if code, _ := do(app, auth.Request("DELETE", "/orders", admin)); code != 204 {
		t.Errorf("admin: %d", code)
	}
	auth.Clock.Advance(2 * time.Minute)
	if code, body := do(app, auth.Request("GET", "/orders", alice)); code != 401 || !strings.Contains(body, "token_expired") {
		t.Errorf("expired: %d %s", code, body)
	}
	fresh, err := auth.Refresh(t.Context(), alice.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := auth.RevokeSubject(t.Context(), "alice", counterfoil.SignedOutEverywhere); err != nil {
		t.Fatal(err)
	}
	if code, body := do(app, auth.Request("GET", "/orders", fresh)); code != 401 || !strings.Contains(body, "token_revoked") {
		t.Errorf("signed out: %d %s", code, body)
	}
}

func TestARemoteVerifierWithoutANetwork(t *testing.T) {
	auth := counterfoiltest.New(t)
	secret, _, err := auth.CreateAPIKey(t.Context(), counterfoil.NewAPIKey{Name: "orders", Scopes: []string{counterfoil.ScopeVerify}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.New(t.Context(), verify.Config{
		Issuer: auth.Issuer(), Audience: "app", APIKey: secret.Reveal(),
		HTTPClient: auth.Client(), Clock: auth.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	app := service(v)
	admin := auth.SignIn("root", counterfoiltest.Roles("admin"))
	if code, body := do(app, auth.Request("DELETE", "/orders", admin)); code != 204 {
		t.Fatalf("%d %s", code, body)
	}
	auth.Down(true)
	if code, _ := do(app, auth.Request("GET", "/orders", admin)); code != 200 {
		t.Errorf("local verification needs nobody: %d", code)
	}
	if code, _ := do(app, auth.Request("DELETE", "/orders", admin)); code != 503 {
		t.Errorf("a live check with nobody to ask: %d", code)
	}
	_, err = auth.Refresh(t.Context(), admin.SessionToken.Reveal(), counterfoil.RefreshRequest{})
	if !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("refresh: %v", err)
	}
	auth.Down(false)
	if err := auth.RevokeSession(t.Context(), admin.Session.ID, counterfoil.SignedOut); err != nil {
		t.Fatal(err)
	}
	if code, body := do(app, auth.Request("DELETE", "/orders", admin)); code != 401 || !strings.Contains(body, "token_revoked") {
		t.Errorf("revoked, asked live: %d %s", code, body)
	}
}

func TestDirectoryAndLogs(t *testing.T) {
	auth := counterfoiltest.New(t)
	res, err := auth.Client().Post(auth.Issuer()+"/v1/auth/sign-up", "application/json",
		strings.NewReader(`{"email":"ada@example.com","password":"seven grey herons over the weir","transport":"body"}`))
	if err != nil || res.StatusCode != 201 {
		t.Fatalf("sign-up: %+v, %v", res, err)
	}
	if strings.Contains(auth.Logs.String(), "cf_st_") {
		t.Error("a session token was logged")
	}
}
