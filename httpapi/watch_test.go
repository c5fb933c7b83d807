package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

const watchPath = "/v1/auth/session/watch"

// pageStream is the stream of events that a page holds.
type pageStream struct {
	t     testing.TB
	res   *http.Response
	lines *bufio.Scanner
}

// openStream asks for a stream; headers come by pairs.
func openStream(t testing.TB, client *http.Client, url string, header ...string) *pageStream {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+watchPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return &pageStream{t, res, bufio.NewScanner(res.Body)}
}

// next is the next event, or ("", nil) at the end of the stream. A comment is
// an event called beat.
func (p *pageStream) next() (name string, data map[string]any) {
	p.t.Helper()
	for p.lines.Scan() {
		line := p.lines.Text()
		switch {
		case line == ": beat":
			return "beat", nil
		case strings.HasPrefix(line, "event: "):
			name = line[7:]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[6:]), &data); err != nil {
				p.t.Fatalf("%s: %v", line, err)
			}
			return name, data
		case line != "" && !strings.HasPrefix(line, "retry: "):
			p.t.Fatalf("the stream says %q", line)
		}
	}
	return "", nil
}

// wants reads up to an event other than a beat.
func (p *pageStream) wants(name string) map[string]any {
	p.t.Helper()
	for {
		got, data := p.next()
		if got == "beat" {
			continue
		}
		if got != name {
			p.t.Fatalf("%q %v, want %s", got, data, name)
		}
		return data
	}
}

func TestAPageLearnsWhatBecomesOfItsSession(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2=%t", two), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.oneNode() // whose gauge is read
				_, client := s.overPipes(two)
				url := "http://app.example"
				if two {
					url = "https://app.example"
				}
				user := s.signUp("ann@example.org")
				native := s.another(user)
				page := openStream(t, client, url, "Cookie", cookie+"="+user.text("session_token"), "Origin", friend, "Sec-Fetch-Site", "cross-site")
				app := openStream(t, client, url, "Authorization", "Bearer "+native.text("session_token"))
				h := page.res.Header
				if page.res.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("X-Accel-Buffering") != "no" ||
					h.Get("Cache-Control") != "private, no-store" || h.Get("Access-Control-Allow-Origin") != friend || page.res.ProtoMajor == 2 != two { // SEC-10, SEC-100
					t.Errorf("%s %s %v", page.res.Proto, page.res.Status, h)
				}
				first := page.wants("hello")
				if first["sid"] != user.sid() || first["server_time"] != float64(s.now().Unix()) || first["epoch"] == nil {
					t.Errorf("hello %v", first)
				}
				app.wants("hello")
				began := time.Now()
				for range 40 { // ten minutes: longer than any limit of the server
					if name, _ := page.next(); name != "beat" {
						t.Fatalf("%q after %s", name, time.Since(began))
					}
					if name, _ := app.next(); name != "beat" {
						t.Fatalf("%q after %s", name, time.Since(began))
					}
				}
				if took := time.Since(began); took != 10*time.Minute {
					t.Errorf("40 beats in %s", took)
				}
				text := httptest.NewRecorder()
				httpapi.NewMetrics(s.auth).ServeHTTP(text, httptest.NewRequest("GET", "/metrics", nil))
				if !strings.Contains(text.Body.String(), "\ncounterfoil_session_watches 2\n") {
					t.Error("the gauge does not say 2")
				}
				began = time.Now()
				s.wants(s.backend("POST /v1/users/"+user.subject()+"/rights-changed", ""), 204)
				page.wants("stale")
				app.wants("stale")
				// Signed out from the other device.
				s.wants(s.do(ask{method: "POST /v1/auth/sign-out", bearer: native.text("session_token"), body: `{"sid":"` + user.sid() + `"}`}), 204)
				end := page.wants("ended")
				if end["code"] != "session_revoked" || end["reason"] != "signed_out_everywhere" || end["sid"] != user.sid() || end["ended_at"] == nil {
					t.Errorf("ended %v", end)
				}
				if name, _ := page.next(); name != "" {
					t.Errorf("%q after the end", name)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("told after %s", took)
				}
				s.wants(s.do(ask{method: "GET " + watchPath, bearer: user.text("session_token")}), 401, `"session_revoked"`, `"reason":"signed_out_everywhere"`)
				// The other one is left alone until it expires.
				s.forward(7 * 24 * time.Hour)
				if end := app.wants("ended"); end["code"] != "session_expired" || end["reason"] != nil {
					t.Errorf("ended %v", end)
				}
				synctest.Wait()
				if n := s.auth.Stats().Watches; n != 0 {
					t.Errorf("%d watches are left", n)
				}
			})
		})
	}
}

func TestWatchAnswersWhoMayNotWatch(t *testing.T) {
	s := newSite(t, func(c *counterfoil.Config) { c.MaxWatches = 12 })
	user := s.signUp("ann@example.org")
	mine := cookie + "=" + user.text("session_token")
	s.wants(s.do(ask{method: "GET " + watchPath}), 401, `"credential_missing"`)
	s.wants(s.do(ask{method: "GET " + watchPath, cookies: []string{mine, mine}}), 401, `"credential_ambiguous"`) // SEC-08
	s.wants(s.do(ask{method: "GET " + watchPath, bearer: "cf_st_x"}), 401, `"session_unknown"`)
	s.wants(s.do(ask{method: "GET " + watchPath + "?x=1", cookies: []string{mine}}), 400, `"invalid_request"`)
	s.wants(s.do(ask{method: "POST " + watchPath, cookies: []string{mine}, any: true}), 405)
	// SEC-98: a stream is held, so pages that may not read it get none.
	for _, from := range [][]string{
		{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, {"Origin", "https://other.app.example", "Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site"}, {"Origin", "null", "Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"},
	} {
		a := s.wants(s.do(ask{method: "GET " + watchPath, cookies: []string{mine}, header: from}), 403, `"invalid_request"`, `"field":"Origin"`)
		if allowed := a.Header().Get("Access-Control-Allow-Origin"); allowed != "" { // SEC-100
			t.Errorf("from %v: %s may read it", from, allowed)
		}
	}
	for _, from := range [][]string{nil, {"Origin", friend, "Sec-Fetch-Site", "cross-site"}, {"Origin", issuer, "Sec-Fetch-Site", "same-origin"}} {
		s.wants(s.do(ask{method: "GET " + watchPath, cookies: []string{mine}, header: from}), 200, "event: hello\n")
	}
	s.wants(s.do(ask{method: "HEAD " + watchPath, cookies: []string{mine}}), 200, "!hello")
	if n := s.auth.Stats().Watches; n != 0 {
		t.Errorf("%d watches are left", n)
	}

	// Room for ten of a session, and here for twelve of all.
	live, err := s.auth.Authenticate(t.Context(), user.text("session_token"))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := s.auth.WatchSession(t.Context(), live); err != nil {
			t.Fatal(err)
		}
	}
	a := s.wants(s.do(ask{method: "GET " + watchPath, cookies: []string{mine}}), 429, `"rate_limited"`)
	if a.Header().Get("Retry-After") != "30" {
		t.Errorf("%v", a.Header())
	}
	other := s.another(user).text("session_token")
	if live, err = s.auth.Authenticate(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.auth.WatchSession(t.Context(), live); err != nil {
			t.Fatal(err)
		}
	}
	a = s.wants(s.do(ask{method: "GET " + watchPath, bearer: other}), 503, `"unavailable"`)
	if after := a.Header().Get("Retry-After"); len(after) != 2 || after < "15" {
		t.Errorf("Retry-After %q", after)
	}
}

// SEC-117: who does not read what is written is cut off.
func TestWatchCutsSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		network := newPipes()
		slow := &http.Server{Handler: s.handler}
		go func() { _ = slow.Serve(network) }()
		defer slow.Close()
		conn, err := network.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		user := s.signUp("ann@example.org")
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: app.example\r\nAuthorization: Bearer %s\r\n\r\n", watchPath, user.text("session_token")); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReaderSize(conn, 1), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.auth.Stats().Watches; n != 1 {
			t.Fatalf("%d watches", n)
		}
		time.Sleep(26 * time.Second) // a beat, and the time to take it
		synctest.Wait()
		if n := s.auth.Stats().Watches; n != 0 {
			t.Errorf("%d watches of a reader that does not read", n)
		}
	})
}

// A reader that goes frees its place at once.
func TestWatchSeesThatTheReaderHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		_, client := s.overPipes(true)
		page := openStream(t, client, "https://app.example", "Authorization", "Bearer "+s.signUp("ann@example.org").text("session_token"))
		page.wants("hello")
		_ = page.res.Body.Close()
		synctest.Wait()
		if n := s.auth.Stats().Watches; n != 0 {
			t.Errorf("%d watches", n)
		}
	})
}

// A server that is shut down waits for its requests: streams end at once.
func TestWatchEndsWithTheServer(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2=%t", two), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				server, client := s.overPipes(two)
				url := "http://app.example"
				if two {
					url = "https://app.example"
				}
				token := s.signUp("ann@example.org").text("session_token")
				var pages sync.WaitGroup
				for range 3 {
					page := openStream(t, client, url, "Authorization", "Bearer "+token)
					page.wants("hello")
					pages.Go(func() {
						if name, data := page.next(); name != "" { // nothing is said of the session
							t.Errorf("%s %v", name, data)
						}
					})
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := server.Shutdown(ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("shut down after %s", took)
				}
				pages.Wait()
			})
		})
	}
}

// And with the authority, behind a server that goes on.
func TestWatchEndsWithTheAuthority(t *testing.T) {
	s := newSite(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.handler}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	page := openStream(t, http.DefaultClient, "http://"+listener.Addr().String(), "Authorization", "Bearer "+s.signUp("ann@example.org").text("session_token"))
	page.wants("hello")
	if err := s.auth.Close(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(page.res.Body); err != nil || strings.Contains(string(rest), "event:") {
		t.Errorf("%q %v", rest, err)
	}
}
