package main

import (
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

// A backup is restored after a day under load. No access token from before is
// taken, no session that was revoked after the backup lives, and verifiers
// that ran all the time follow the new timeline.
func TestRestoredUnderLoad(t *testing.T) {
	notUnderRace(t)
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "restored.db")
		testRestored(t, "sqlite:"+path, func() func() string {
			data, err := os.ReadFile(path) // the server is stopped: nothing is in the log
			if err != nil {
				t.Fatal(err)
			}
			return func() string {
				other := filepath.Join(t.TempDir(), "back.db")
				if err := os.WriteFile(other, data, 0o600); err != nil {
					t.Fatal(err)
				}
				return "sqlite:" + other
			}
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		from := testPostgres(t)
		testRestored(t, from, func() func() string {
			other, err := url.Parse(from)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(other.Path, "/")
			other.Path += "_back"
			admin, err := sql.Open("pgx", os.Getenv("COUNTERFOIL_TEST_POSTGRES"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, err := admin.Exec(`DROP DATABASE "` + name + `_back" WITH (FORCE)`)
				if err := errors.Join(err, admin.Close()); err != nil {
					t.Error(err)
				}
			})
			if _, err := admin.Exec(`CREATE DATABASE "` + name + `_back" TEMPLATE "` + name + `"`); err != nil {
				t.Fatal(err)
			}
			return func() string { return other.String() }
		})
	})
}

func testRestored(t *testing.T, database string, backup func() (restore func() string)) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := &deployment{t: t, database: database, seal: sealFile(t)}
	key := commandOutput(t, "api-key", "create", "--name", "load", "--database", prepared(t, d.start, d.database))
	front := newFront(t, d.start().url)
	v := remoteVerifier(t, loadIssuer, front.URL, key)
	load := func(calls int64) *crowd {
		c := newCrowd(t, front.URL, key, seed)
		for deadline := time.Now().Add(30 * time.Second); c.calls.Load() < calls && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		c.end()
		return c
	}
	before := load(300)
	if err := d.server.stop(); err != nil {
		t.Fatal(err)
	}
	restore := backup()
	front.target.Store(mustURL(t, d.start().url))
	after := load(300)
	// Revoked after the backup was made.
	var revoked []*user
	before.stop = make(chan struct{})
	for _, u := range before.users {
		if u.revoked.IsZero() && len(revoked) < 10 {
			before.revoke(u)
			revoked = append(revoked, u)
		}
	}
	if err := d.server.kill(); err != nil {
		t.Fatal(err)
	}
	<-d.server.done
	timeline, _, _ := strings.Cut(v.Stats().Position, ".")

	d.database = restore()
	said := commandOutput(t, "restored", "--database", d.database, "--yes")
	t.Log(said)
	front.target.Store(mustURL(t, d.start().url))
	c := &crowd{t: t, url: front.URL, key: key, http: before.http, stop: make(chan struct{})}
	fresh := c.signIn("somebody")
	waitFor(t, "the verifier to take a new token", func() bool { _, err := v.Check(t.Context(), fresh.access); return err == nil })
	everyoneRefused := func() {
		t.Helper()
		for _, u := range append(before.users, after.users...) {
			if _, err := v.Check(t.Context(), u.access); err == nil || errors.Is(err, verify.ErrUnavailable) {
				t.Fatalf("an access token from before: %v", err)
			}
		}
	}
	everyoneRefused() // by the new keys
	waitFor(t, "the verifier to follow the new timeline", func() bool {
		now, _, _ := strings.Cut(v.Stats().Position, ".")
		return now != timeline && now != ""
	})
	everyoneRefused() // and with what the feed retains
	for _, u := range before.users {
		status, text := c.call("POST", "/v1/auth/refresh", u.session, "", nil)
		if status != 401 || !strings.Contains(text, `"session_revoked"`) {
			t.Fatalf("session %s from before: %d %s", u.sid, status, text)
		}
	}
	for _, u := range after.users { // of which the backup knows nothing
		if status, text := c.call("POST", "/v1/auth/refresh", u.session, "", nil); status != 401 {
			t.Fatalf("session %s of after the backup: %d %s", u.sid, status, text)
		}
	}
	var got struct {
		Session struct {
			End struct{ Reason string }
		}
	}
	for _, u := range before.users {
		if u.revoked.IsZero() {
			if c.call("GET", "/v1/sessions/"+u.sid, key, "", &got.Session); got.Session.End.Reason != "restored" {
				t.Errorf("session %s ended for %q", u.sid, got.Session.End.Reason)
			}
			break
		}
	}
	if err := d.server.stop(); err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s took longer than 20 s", what)
		}
	}
}
