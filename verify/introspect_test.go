package verify

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil/internal/jws"
)

func TestLiveRemote(t *testing.T) {
	es := newKey(t, "k1", jws.ES256)
	a := newAuthority(es)
	server := a.serve(t)
	var log lockedBuffer
	v := open(t, Config{Authority: server.URL, APIKey: "cf_sk_hush", Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	token := es.mint(t, goodClaims(time.Now()))
	sid := goodClaims(start)["sid"]

	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer cf_sk_hush" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" ||
				r.PostFormValue("token") != token || r.URL.RawQuery != "" {
				t.Errorf("%v %v", r.URL, r.Header)
			}
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	const js = "application/json"
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		want error
	}{
		{"active", answer(200, js, fmt.Sprintf(`{"active":true,"sid":%q,"aud":["x"],"more":{}}`, sid)), nil},
		{"bare active", answer(200, js, `{"active":true}`), nil},
		{"inactive", answer(200, js, `{"active":false}`), ErrTokenRevoked},
		{"stale", answer(200, js, `{"active":false,"cf_code":"token_stale"}`), ErrTokenStale},
		{"revoked", answer(200, js, `{"active":false,"cf_code":"session_revoked"}`), ErrSessionRevoked},
		{"expired", answer(200, js, `{"active":false,"cf_code":"session_expired"}`), ErrSessionExpired},
		{"a code we do not know", answer(200, js, `{"active":false,"cf_code":"moon_phase"}`), ErrTokenRevoked},
		{"another session", answer(200, js, `{"active":true,"sid":"x"}`), ErrUnavailable},
		{"nothing clear", answer(200, js, `{"cf_code":"token_stale"}`), ErrUnavailable},
		{"twice", answer(200, js, `{"active":false,"active":true}`), ErrUnavailable},
		{"a string", answer(200, js, `{"active":"true"}`), ErrUnavailable},
		{"case", answer(200, js, `{"ACTIVE":true}`), ErrUnavailable},
		{"HTML", answer(200, "text/html", `{"active":true}`), ErrUnavailable},
		{"bad API key", answer(401, "application/problem+json", `{"code":"token_invalid"}`), ErrUnavailable},
		{"scope missing", answer(403, "application/problem+json", `{}`), ErrUnavailable},
		{"overload", answer(503, "application/problem+json", `{}`), ErrUnavailable},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusTemporaryRedirect) }, ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a.change(func() { a.introspect = tc.h })
			check(t, v, token, tc.want, Live())
		})
	}
	a.change(func() {
		a.introspect = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	w := serve(v.Require(Live()), request("Authorization", "Bearer "+token))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "7" {
		t.Errorf("%d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	server.Close()
	check(t, v, token, ErrUnavailable, Live())
	check(t, v, token, nil)
	if s := log.String(); strings.Contains(s, "hush") || strings.Contains(s, token) || strings.Contains(s, strings.Split(token, ".")[2]) {
		t.Errorf("SEC-123: the log holds a secret: %s", s)
	}
}

func TestLiveRemoteTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := newKey(t, "k1", jws.ES256)
		a := newAuthority(es)
		a.introspect = func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // only then does the server look whether the client has gone
			<-r.Context().Done()
		}
		v := open(t, Config{Authority: "http://authority", APIKey: "cf_sk_hush", WithoutFeed: true, HTTPClient: inside(a)})
		begin := time.Now()
		check(t, v, es.mint(t, goodClaims(time.Now())), ErrUnavailable, Live())
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		v.Close()
	})
}
