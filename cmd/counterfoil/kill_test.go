package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const killClients = 8

// kill -9 in the middle of a thousand sign-ins and revocations, twenty times:
// every acknowledged sign-in is there after the restart, every acknowledged
// revocation holds.
func TestKill(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		testKill(t, "sqlite:"+filepath.Join(t.TempDir(), "kill.db"))
	})
	t.Run("PostgreSQL", func(t *testing.T) { testKill(t, testPostgres(t)) })
}

func testKill(t *testing.T, database string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	sealFile := filepath.Join(t.TempDir(), "kill.seal")
	if err := os.WriteFile(sealFile, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *process {
		t.Helper()
		p, err := startServer(t.TempDir(), cleanEnv(), "--database", database, "--seal-file", sealFile,
			"--issuer", "https://kill.example", "--log-level", "info")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.kill() })
		return p
	}
	key := commandOutput(t, "api-key", "create", "--name", "kill", "--database", prepared(t, start, database))

	var ledger, all ledger
	server := start()
	for round := range killRounds {
		client := &killClient{t: t, url: server.url, key: key, http: &http.Client{Timeout: 10 * time.Second}}
		acknowledged := client.load(&ledger, random.Uint64(), int64(1+random.IntN(killCalls)), server)
		client.http.CloseIdleConnections()
		server = start()
		checked := (&killClient{t: t, url: server.url, key: key, http: &http.Client{Timeout: 30 * time.Second}}).check(&ledger)
		if t.Failed() {
			t.Fatalf("round %d: after %d acknowledged calls", round, acknowledged)
		}
		all.fates = append(all.fates, ledger.fates...)
		t.Logf("round %2d: killed after %4d acknowledged calls; %4d sessions checked", round, acknowledged, checked)
	}
	// What the first rounds were told holds after all later kills too.
	(&killClient{t: t, url: server.url, key: key, http: &http.Client{Timeout: 30 * time.Second}}).check(&all)
	if err := server.stop(); err != nil {
		t.Error(err)
	}
}

// prepared starts and stops a server once, so that the database is there.
func prepared(t *testing.T, start func() *process, database string) string {
	t.Helper()
	if err := start().stop(); err != nil {
		t.Fatal(err)
	}
	return database
}

// fate is what the servers acknowledged of one session.
type fate struct {
	sid, token string
	revoking   bool // a revocation was sent
	revoked    bool // and acknowledged
}

// ledger is what was acknowledged in the present round.
type ledger struct {
	mu    sync.Mutex
	fates []*fate
}

type killClient struct {
	t    *testing.T
	url  string
	key  string
	http *http.Client
}

// load signs in and revokes from several goroutines, and kills the server
// once so many calls were acknowledged.
func (c *killClient) load(l *ledger, seed uint64, killAfter int64, server *process) int64 {
	l.fates = nil
	var sent, acknowledged atomic.Int64
	var killing sync.Once
	var clients sync.WaitGroup
	for i := range killClients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			var mine []*fate
			for sent.Add(1) <= killCalls {
				var err error
				if len(mine) > 0 && random.IntN(2) == 0 {
					at := random.IntN(len(mine))
					err = c.revoke(mine[at])
					mine = append(mine[:at], mine[at+1:]...)
				} else {
					var f *fate
					if f, err = c.signIn(fmt.Sprintf("user-%d", random.IntN(50))); err == nil {
						mine = append(mine, f)
						l.mu.Lock()
						l.fates = append(l.fates, f)
						l.mu.Unlock()
					}
				}
				if err != nil {
					return // the server is gone
				}
				if acknowledged.Add(1) == killAfter {
					killing.Do(func() {
						if err := server.kill(); err != nil {
							c.t.Error(err)
						}
					})
				}
			}
		})
	}
	clients.Wait()
	killing.Do(func() {
		if err := server.kill(); err != nil {
			c.t.Error(err)
		}
	})
	return acknowledged.Load()
}

// do makes a call; an error means that nothing was acknowledged.
func (c *killClient) do(method, path, bearer, body string) (status int, answer []byte, err error) {
	r, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	response, err := c.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

func (c *killClient) signIn(subject string) (*fate, error) {
	status, body, err := c.do("POST", "/v1/sessions", c.key, `{"subject":"`+subject+`"}`)
	if err != nil {
		return nil, err
	}
	if status != http.StatusCreated {
		c.t.Errorf("sign-in: status %d: %s", status, body)
		return nil, errors.New("refused")
	}
	var got struct {
		SessionToken string `json:"session_token"`
		Session      struct {
			SID string `json:"sid"`
		} `json:"session"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		c.t.Errorf("sign-in: %v", err)
		return nil, err
	}
	return &fate{sid: got.Session.SID, token: got.SessionToken}, nil
}

func (c *killClient) revoke(f *fate) error {
	f.revoking = true
	status, body, err := c.do("DELETE", "/v1/sessions/"+f.sid, c.key, "")
	if err != nil {
		return err
	}
	if status != http.StatusNoContent {
		c.t.Errorf("revoke: status %d: %s", status, body)
		return errors.New("refused")
	}
	f.revoked = true
	return nil
}

// check compares what the restarted server says with what was acknowledged.
func (c *killClient) check(l *ledger) int {
	var next atomic.Int64
	var clients sync.WaitGroup
	for range killClients {
		clients.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(l.fates)); i = next.Add(1) - 1 {
				c.checkOne(l.fates[i])
			}
		})
	}
	clients.Wait()
	return len(l.fates)
}

func (c *killClient) checkOne(f *fate) {
	status, body, err := c.do("POST", "/v1/auth/refresh", f.token, "")
	ended := status == http.StatusUnauthorized && bytes.Contains(body, []byte(`"session_revoked"`))
	switch {
	case err != nil:
		c.t.Errorf("session %s: %v", f.sid, err)
	case f.revoked && !ended:
		c.t.Errorf("session %s: its revocation was acknowledged, and it answers %d %s", f.sid, status, body)
	case !f.revoking && status != http.StatusOK:
		c.t.Errorf("session %s: its sign-in was acknowledged, and it answers %d %s", f.sid, status, body)
	case f.revoking && !ended && status != http.StatusOK:
		c.t.Errorf("session %s: it answers %d %s", f.sid, status, body)
	}
}

// commandOutput runs the command in this process and returns what it prints.
func commandOutput(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	if code := run(t.Context(), args, &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}); code != exitOK {
		t.Fatalf("counterfoil %s: exit code %d\n%s", strings.Join(args, " "), code, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}
