package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/verify"
)

// front is what stands before the servers: it sends everything to one of
// them, and to the next as soon as the one says that it is not ready.
type front struct {
	*httptest.Server
	target atomic.Pointer[url.URL]
	next   atomic.Pointer[url.URL]
}

func newFront(t *testing.T, target string) *front {
	f := &front{}
	f.target.Store(mustURL(t, target))
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(f.target.Load()) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			f.turn()
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusServiceUnavailable {
				f.turn()
			}
			return nil
		}}
	f.Server = httptest.NewServer(proxy)
	t.Cleanup(f.Close)
	return f
}

// turn goes on with the next server when the present one is not ready.
func (f *front) turn() {
	next, was := f.next.Load(), f.target.Load()
	if next == nil || next == was {
		return
	}
	response, err := http.Get(was.String() + "/readyz")
	if err == nil {
		response.Body.Close()
	}
	if err != nil || response.StatusCode == http.StatusServiceUnavailable {
		f.target.Store(next)
	}
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// user is a session as its holder and the backend know it.
type user struct {
	sid, session string
	access       string // the last access token, and
	at           time.Time
	revoked      time.Time // when a revocation was acknowledged
}

// crowd signs in, refreshes and revokes, and waits while it is told to.
type crowd struct {
	t        *testing.T
	url, key string
	http     *http.Client

	mu      sync.Mutex
	users   []*user
	calls   atomic.Int64
	waited  atomic.Int64 // answers 503
	stop    chan struct{}
	clients sync.WaitGroup
}

func newCrowd(t *testing.T, url, key string, seed uint64) *crowd {
	c := &crowd{t: t, url: url, key: key, http: &http.Client{Timeout: 20 * time.Second}, stop: make(chan struct{})}
	for i := range 4 {
		c.clients.Go(func() { c.run(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	return c
}

func (c *crowd) end() {
	close(c.stop)
	c.clients.Wait()
}

func (c *crowd) run(r *rand.Rand) {
	var mine []*user
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		pick := func() *user { return mine[r.IntN(len(mine))] }
		switch n := r.IntN(12); {
		case len(mine) == 0 || n == 0:
			if u := c.signIn(fmt.Sprintf("user-%d", r.IntN(200))); u != nil {
				mine = append(mine, u)
			}
		case n < 9:
			c.refresh(pick())
		default:
			c.revoke(pick())
		}
	}
}

// call repeats what is answered with 503, as clients do, and stays within a
// bound.
func (c *crowd) call(method, path, bearer, body string, into any) (status int, text string) {
	began := time.Now()
	for {
		r, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
		if err != nil {
			c.t.Error(err)
			return 0, ""
		}
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
		response, err := c.http.Do(r)
		if err == nil {
			var answer []byte
			answer, err = io.ReadAll(response.Body)
			response.Body.Close()
			status, text = response.StatusCode, string(answer)
		}
		if err == nil && status != http.StatusServiceUnavailable {
			c.calls.Add(1)
			if status < 300 && into != nil {
				if err := json.Unmarshal([]byte(text), into); err != nil {
					c.t.Errorf("%s %s: %v", method, path, err)
				}
			}
			return status, text
		}
		c.waited.Add(1)
		if time.Since(began) > 30*time.Second {
			c.t.Errorf("%s %s: still %d after %s: %s %v", method, path, status, time.Since(began), text, err)
			return 0, ""
		}
		select {
		case <-c.stop:
			if time.Since(began) > 10*time.Second {
				return 0, ""
			}
		case <-time.After(20 * time.Millisecond): // as Retry-After has clients do, only shorter
		}
	}
}

func (c *crowd) signIn(subject string) *user {
	var got struct {
		SessionToken string `json:"session_token"`
		AccessToken  string `json:"access_token"`
		Session      struct {
			SID string `json:"sid"`
		} `json:"session"`
	}
	status, text := c.call("POST", "/v1/sessions", c.key, `{"subject":"`+subject+`"}`, &got)
	if status != http.StatusCreated {
		if status != 0 {
			c.t.Errorf("sign-in: %d %s", status, text)
		}
		return nil
	}
	u := &user{sid: got.Session.SID, session: got.SessionToken, access: got.AccessToken, at: time.Now()}
	c.mu.Lock()
	c.users = append(c.users, u)
	c.mu.Unlock()
	return u
}

// refresh wants a token for a session that lives, and none for one whose
// revocation was acknowledged before the call.
func (c *crowd) refresh(u *user) {
	c.mu.Lock()
	revoked := !u.revoked.IsZero()
	c.mu.Unlock()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	status, text := c.call("POST", "/v1/auth/refresh", u.session, "", &got)
	switch {
	case status == 0:
	case revoked && !(status == http.StatusUnauthorized && strings.Contains(text, `"session_revoked"`)):
		c.t.Errorf("session %s was revoked, and refreshing it answers %d %s", u.sid, status, text)
	case !revoked && status != http.StatusOK:
		c.t.Errorf("session %s is good, and refreshing it answers %d %s", u.sid, status, text)
	case !revoked:
		c.mu.Lock()
		u.access, u.at = got.AccessToken, time.Now()
		c.mu.Unlock()
	}
}

func (c *crowd) revoke(u *user) {
	status, text := c.call("DELETE", "/v1/sessions/"+u.sid, c.key, "", nil)
	if status == http.StatusNoContent {
		c.mu.Lock()
		defer c.mu.Unlock()
		if u.revoked.IsZero() {
			u.revoked = time.Now()
		}
		return
	}
	if status != 0 {
		c.t.Errorf("revoke: %d %s", status, text)
	}
}

// check refreshes everybody, and wants the verifier to agree.
func (c *crowd) check(v *verify.Verifier) (live, ended int) {
	c.stop = make(chan struct{})
	for _, u := range c.users {
		c.refresh(u)
		if !u.revoked.IsZero() {
			ended++
			c.refusedBy(v, u.access)
			continue
		}
		live++
		if _, err := v.Check(context.Background(), u.access); err != nil {
			c.t.Errorf("session %s: its access token is refused: %v", u.sid, err)
		}
	}
	return live, ended
}

// refusedBy waits until a verifier refuses a token.
func (c *crowd) refusedBy(v *verify.Verifier, token string) {
	c.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := v.Check(context.Background(), token)
		if err != nil && !errors.Is(err, verify.ErrUnavailable) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("a token that has to be refused is taken: %v", err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func remoteVerifier(t *testing.T, issuer, authority, key string) *verify.Verifier {
	t.Helper()
	v, err := verify.New(t.Context(), verify.Config{Issuer: issuer, Audience: "app", Authority: authority, APIKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	ready, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := v.Wait(ready); err != nil {
		t.Fatal(err)
	}
	return v
}

// past fills a database with sessions of before, so that comparing takes time.
func past(t *testing.T, path string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Now().UnixMilli()
	numbers := func(n int) string {
		return fmt.Sprintf(`WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d) `, n)
	}
	for _, statement := range []string{
		`INSERT INTO counterfoil_subjects (no, id, epoch) ` + numbers(n/2) + `SELECT 1000000 + n, 'old-' || n, 1 FROM c`,
		fmt.Sprintf(`INSERT INTO counterfoil_sessions (sid, subject_no, client_id, created_at, last_active_at, idle_ms, expires_at, epoch0, secret_hash, user_agent)
			%s SELECT 'old' || n, 1000001 + n %% %d, 'default', %d, %d, 604800000, %d, 1, randomblob(32), 'Firefox' FROM c`, numbers(n), n/2, now, now, now+86400000),
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func sealFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "test.seal")
	if err := os.WriteFile(path, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
