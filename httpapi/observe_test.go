package httpapi_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

// A panic is a problem with a request id; the log has it, without secrets.
func TestPanic(t *testing.T) {
	s := newSite(t, func(c *counterfoil.Config) {
		c.Claims = func(_ context.Context, session counterfoil.Session) (counterfoil.Claims, error) {
			switch session.Subject {
			case "panics":
				panic("with cf_st_0123456789abcdef in it")
			case "fails":
				return counterfoil.Claims{}, errors.New("no users at cf_sk_0123456789abcdef\nrequest failed status=200")
			}
			return counterfoil.Claims{}, nil
		}
	})
	a := s.wants(s.backend("POST /v1/sessions", `{"subject":"panics"}`), 500, `"code":"internal"`, "!with", "!goroutine")
	log := s.logs.String()
	if !strings.Contains(log, "with cf_st_[redacted] in it") || !strings.Contains(log, a.Header().Get("X-Request-Id")) {
		t.Errorf("SEC-123: the log says:\n%s", log)
	}
	s.wants(s.backend("POST /v1/sessions", `{"subject":"fails"}`), 503, "!users at")
	if log := s.logs.String(); strings.Contains(log, "\nrequest failed status=200") || !strings.Contains(log, `cf_sk_[redacted]\n`) {
		t.Errorf("SEC-124: the log says:\n%s", log)
	}
	// A hook that names a reserved claim is not the client's fault.
	user, err := s.auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	bad := newSiteOver(t, s.db.Store(t), func(c *counterfoil.Config) {
		c.Claims = func(context.Context, counterfoil.Session) (counterfoil.Claims, error) {
			return counterfoil.Claims{Extra: map[string]any{"sub": "root"}}, nil
		}
	})
	w := newRecorder()
	r := newRequest("POST", "/v1/auth/refresh")
	r.Header.Set("Authorization", "Bearer "+user.SessionToken.Reveal())
	bad.ServeHTTP(w, r)
	if w.Code != 500 || strings.Contains(w.Body.String(), "root") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func newSiteOver(t *testing.T, store counterfoil.Store, change func(*counterfoil.Config)) http.Handler {
	t.Helper()
	config := counterfoil.Config{Issuer: issuer, Audiences: []string{"app"}, Seal: counterfoil.SealText(secret64), Logger: slog.New(slog.DiscardHandler)}
	change(&config)
	auth, err := counterfoil.New(t.Context(), store, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { auth.Close() })
	return httpapi.Handler(auth)
}

// SEC-123, SEC-124: what is logged of a request, and what never is.
func TestSEC123RequestLog(t *testing.T) {
	s := newSite(t)
	made := s.wants(s.backend("POST /v1/sessions", `{"subject":"u1"}`), 201)
	s.do(ask{method: "GET /v1/users?email=private@example.org", bearer: s.key})
	s.do(ask{method: "GET /v1/sessions/" + made.text("session_token"), bearer: s.key})
	s.do(ask{method: "GET /v1/nothing/" + made.text("session_token") + "?token=" + made.text("session_token"), any: true})
	s.do(ask{method: "GET /v1/auth/session", cookies: []string{cookie + "=" + made.text("session_token")}})
	s.do(ask{method: "POST /v1/auth/sign-up", body: credentials("private@example.org")})
	s.do(ask{method: "GET /v1/auth/session", header: []string{"User-Agent", "evil\r\nlevel=INFO msg=forged"}})
	log := s.logs.String()
	for _, never := range []string{"private@example.org", goodWord, made.text("access_token"), "forged", "email=", "token=", made.text("session_token")[6:]} {
		if strings.Contains(log, never) {
			t.Errorf("the log holds %q", never)
		}
	}
	for _, want := range []string{"route=/v1/sessions/{sid}", "method=GET", "status=404", "client=192.0.2.7", "code=not_found", "request_id="} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not hold %q:\n%s", want, log)
		}
	}
}

// A method is a client's text too.
func TestStrangeMethod(t *testing.T) {
	s := newSite(t)
	r := newRequest("GET", "/v1/auth/session")
	r.Method = strings.Repeat("X\n", 50)
	s.serve(r, true)
	if strings.Contains(s.logs.String(), "X\\nX") {
		t.Error("logged as it came")
	}
}
