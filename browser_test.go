package counterfoil_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// page is what a browser sends: cookies by name, more headers by pairs.
func page(method string, cookies map[string]string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "https://app.example/page", nil)
	for name, value := range cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func serve(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func accessCookie(res *http.Response) *http.Cookie {
	for _, c := range res.Cookies() {
		if c.Name == "__Host-counterfoil-at" {
			return c
		}
	}
	return nil
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=3600")
	c, _ := verify.FromContext(r.Context())
	fmt.Fprint(w, "hello ", c.Subject)
})

func TestBrowserPagesNeedNoJavaScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g := signIn(t, a, "alice")
		h := a.Browser()(hello)
		jar := map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()}

		res := serve(h, page("GET", jar))
		at := accessCookie(res)
		if res.StatusCode != 200 || at == nil {
			t.Fatalf("first page: %d", res.StatusCode)
		}
		if !at.Secure || !at.HttpOnly || at.Path != "/" || at.Domain != "" || at.SameSite != http.SameSiteLaxMode || at.MaxAge > 60 { // SEC-07
			t.Errorf("cookie %+v", at)
		}
		if got := res.Header.Get("Cache-Control"); got != "private, no-store" { // SEC-10
			t.Errorf("a page that sets a credential has Cache-Control %q", got)
		}
		jar[at.Name] = at.Value
		res = serve(h, page("GET", jar))
		if res.StatusCode != 200 || accessCookie(res) != nil || res.Header.Get("Cache-Control") != "public, max-age=3600" {
			t.Errorf("second page: %d, cookie %v, %q", res.StatusCode, accessCookie(res), res.Header.Get("Cache-Control"))
		}
		time.Sleep(2 * time.Minute)
		if res = serve(h, page("GET", jar)); res.StatusCode != 200 || accessCookie(res) == nil {
			t.Errorf("after expiry: %d", res.StatusCode)
		}
		if err := a.RevokeSession(t.Context(), g.Session.ID, counterfoil.SignedOut); err != nil {
			t.Fatal(err)
		}
		if res = serve(h, page("GET", jar)); res.StatusCode != 401 {
			t.Errorf("after sign-out: %d", res.StatusCode)
		}
	})
}

func TestBrowserMintsAnewForMaxTokenAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g := signIn(t, a, "alice")
		h := a.Browser(verify.MaxTokenAge(20 * time.Second))(hello)
		jar := map[string]string{"__Host-counterfoil": g.SessionToken.Reveal(), "__Host-counterfoil-at": g.AccessToken}
		if res := serve(h, page("GET", jar)); res.StatusCode != 200 || accessCookie(res) != nil {
			t.Errorf("young token: %d", res.StatusCode)
		}
		time.Sleep(25 * time.Second)
		if res := serve(h, page("GET", jar)); res.StatusCode != 200 || accessCookie(res) == nil {
			t.Errorf("older token: %d, want a new one and the page", res.StatusCode)
		}
	})
}

func TestBrowserRefusals(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	jar := map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()}
	h := a.Browser()(hello)
	two := page("GET", jar)
	two.AddCookie(&http.Cookie{Name: "__Host-counterfoil", Value: g.SessionToken.Reveal()})
	for _, tt := range []struct {
		name   string
		r      *http.Request
		status int
		code   string
	}{
		{"no cookie", page("GET", nil), 401, "credential_missing"},
		{"garbage", page("GET", map[string]string{"__Host-counterfoil": "garbage"}), 401, "session_unknown"},
		{"SEC-08 two cookies", two, 401, "credential_ambiguous"},
		{"unprefixed cookie", page("GET", map[string]string{"counterfoil": g.SessionToken.Reveal()}), 401, "credential_missing"},
		{"SEC-98 cross-site POST", page("POST", jar, "Sec-Fetch-Site", "cross-site"), 403, "invalid_request"},
		{"SEC-98 old browser, other origin", page("POST", jar, "Origin", "https://evil.example"), 403, "invalid_request"},
		{"bearer of garbage", page("GET", jar, "Authorization", "Bearer x.y.z"), 401, "token_invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := serve(h, tt.r)
			body, _ := bufio.NewReader(res.Body).ReadString('\x00')
			if res.StatusCode != tt.status || !strings.Contains(body, `"`+tt.code+`"`) {
				t.Errorf("got %d %s, want %d %s", res.StatusCode, body, tt.status, tt.code)
			}
			if accessCookie(res) != nil {
				t.Error("a refusal sets a cookie")
			}
		})
	}
	if res := serve(h, page("POST", jar, "Sec-Fetch-Site", "same-origin")); res.StatusCode != 200 {
		t.Errorf("same-origin POST: %d", res.StatusCode)
	}
	admin := a.Browser(verify.Role("admin"))(hello)
	if res := serve(admin, page("GET", jar)); res.StatusCode != 403 {
		t.Errorf("a role that is missing: %d", res.StatusCode)
	}
}

func TestBrowserSignedOutHook(t *testing.T) {
	a := open(t, nil, func(c *counterfoil.Config) {
		c.SignedOut = func(w http.ResponseWriter, r *http.Request, _ error) {
			http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		}
	})
	res := serve(a.Browser()(hello), page("GET", nil))
	if res.StatusCode != 303 || res.Header.Get("Location") != "/sign-in" || res.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

func TestBrowserRefreshesOnceForAFanOut(t *testing.T) { // pains: one navigation, fifty requests
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		release := make(chan struct{})
		store := newStore(t)
		var gate atomic.Bool
		a := open(t, gatedStore{store, gatedSessions{store.Sessions(), &gate, release, &reads}}, nil)
		g := signIn(t, a, "alice")
		h := a.Browser()(hello)
		gate.Store(true)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				res := serve(h, page("GET", map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()}))
				if res.StatusCode != 200 || accessCookie(res) == nil {
					t.Errorf("status %d", res.StatusCode)
				}
			})
		}
		synctest.Wait() // all of them are waiting
		close(release)
		wg.Wait()
		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads of one session for 50 requests", n)
		}
	})
}

func TestBrowserLeavesStreamingAlone(t *testing.T) {
	a := authority(t)
	g := signIn(t, a, "alice")
	stream := a.Browser()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	}))
	srv := httptest.NewServer(stream)
	defer srv.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	req.AddCookie(&http.Cookie{Name: "__Host-counterfoil", Value: g.SessionToken.Reveal()})
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil || line != "data: 1\n" || accessCookie(res) == nil {
		t.Errorf("%q, %v", line, err)
	}
}

func TestBrowserServesTheSessionThatSignedInLast(t *testing.T) {
	a := authority(t)
	alice, bob := signIn(t, a, "alice"), signIn(t, a, "bob")
	// Alice's access token is still in the browser when Bob signs in there.
	res := serve(a.Browser()(hello), page("GET", map[string]string{
		"__Host-counterfoil": bob.SessionToken.Reveal(), "__Host-counterfoil-at": alice.AccessToken,
	}))
	body, _ := io.ReadAll(res.Body)
	if string(body) != "hello bob" || accessCookie(res) == nil {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

func TestBrowserSeesAStepUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		defer a.Close()
		g := signIn(t, a, "alice")
		time.Sleep(time.Hour)
		careful := a.Browser(verify.MaxAuthAge(10 * time.Minute))(hello)
		old := refresh(t, a, g)
		jar := map[string]string{"__Host-counterfoil": g.SessionToken.Reveal(), "__Host-counterfoil-at": old.AccessToken}
		if res := serve(careful, page("GET", jar)); res.StatusCode != 401 || !strings.Contains(res.Header.Get("WWW-Authenticate"), "insufficient_user_authentication") {
			t.Fatalf("before: %d", res.StatusCode)
		}
		s, err := a.Authenticate(t.Context(), g.SessionToken.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		up, err := a.Reauthenticated(t.Context(), nil, s, []string{"pwd"})
		if err != nil {
			t.Fatal(err)
		}
		jar["__Host-counterfoil"] = up.SessionToken.Reveal()
		if res := serve(careful, page("GET", jar)); res.StatusCode != 200 {
			t.Errorf("after: %d", res.StatusCode)
		}
	})
}

func TestAPanicOfTheClaimsHookEndsOneRequest(t *testing.T) {
	calm := true
	a := open(t, nil, func(c *counterfoil.Config) {
		c.Claims = func(context.Context, counterfoil.Session) (counterfoil.Claims, error) {
			if !calm {
				panic("nil map")
			}
			return counterfoil.Claims{}, nil
		}
	})
	g := signIn(t, a, "alice")
	calm = false
	if res := serve(a.Browser()(hello), page("GET", map[string]string{"__Host-counterfoil": g.SessionToken.Reveal()})); res.StatusCode != 503 {
		t.Errorf("status %d", res.StatusCode)
	}
}
