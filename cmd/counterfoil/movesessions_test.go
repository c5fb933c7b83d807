package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

func testRedis(t *testing.T) *testenv.Redis {
	t.Helper()
	bin := os.Getenv(testenv.RedisBin)
	if bin == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", testenv.RedisBin)
		}
		t.Skipf("needs Redis: run make test, or set %s", testenv.RedisBin)
	}
	r, err := testenv.StartRedis(t.Context(), bin, "", "appendonly yes", "appendfsync always", "maxmemory-policy noeviction")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Sessions go to Redis and all else to a new database, under load; then that
// database is restored from a backup.
func TestMoveSessionsToRedis(t *testing.T) {
	notUnderRace(t)
	redis := testRedis(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	folder := t.TempDir()
	old := &deployment{t: t, database: "sqlite:" + filepath.Join(folder, "old.db"), seal: sealFile(t)}
	key := commandOutput(t, "api-key", "create", "--name", "load", "--database", prepared(t, old.start, old.database))
	front := newFront(t, old.start().url)
	v := remoteVerifier(t, loadIssuer, front.URL, key)
	crowd := newCrowd(t, front.URL, key, seed)
	for crowd.calls.Load() < 300 {
		time.Sleep(time.Millisecond)
	}
	target := "sqlite:" + filepath.Join(folder, "new.db")
	t.Log(commandOutput(t, "move", "--database", old.database, "--to", target, "--to-sessions", redis.URL))
	now := &deployment{t: t, database: target, seal: old.seal, more: []string{"--sessions", redis.URL}}
	front.next.Store(mustURL(t, now.start().url))
	for from := crowd.calls.Load(); crowd.calls.Load() < from+300; {
		time.Sleep(time.Millisecond)
	}
	crowd.end()
	live, ended := crowd.check(v)
	t.Logf("%d sessions live, %d ended, %d answers 503", live, ended, crowd.waited.Load())
	if stats := v.Stats(); stats.Snapshots != 1 {
		t.Errorf("the verifier heard %d snapshots", stats.Snapshots)
	}

	// A Redis that was used is refused before anything is fenced.
	if err := now.server.stop(); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	a := &app{stdin: strings.NewReader(""), stdout: &stderr, stderr: &stderr}
	another := "sqlite:" + filepath.Join(folder, "another.db")
	prepared(t, (&deployment{t: t, database: another, seal: old.seal}).start, another)
	if code := run(t.Context(), []string{"move", "--database", another, "--to", "sqlite:" + filepath.Join(folder, "third.db"), "--to-sessions", redis.URL}, a); code != exitFailed ||
		!strings.Contains(stderr.String(), "empty it first") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}

	stderr.Reset()
	if code := run(t.Context(), []string{"restored", "--database", target, "--yes"}, a); code != exitFailed || !strings.Contains(stderr.String(), "give --sessions") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	commandOutput(t, "restored", "--database", target, "--sessions", redis.URL, "--yes")
	front.target.Store(mustURL(t, now.start().url))
	for _, u := range crowd.users {
		if status, text := crowd.call("POST", "/v1/auth/refresh", u.session, "", nil); status != 401 || !strings.Contains(text, `"session_revoked"`) {
			t.Fatalf("session %s from before: %d %s", u.sid, status, text)
		}
	}
	fresh := crowd.signIn("somebody")
	waitFor(t, "the verifier to take a new token", func() bool { _, err := v.Check(t.Context(), fresh.access); return err == nil })
	if _, err := v.Check(t.Context(), crowd.users[0].access); err == nil {
		t.Error("an access token from before is taken")
	}
}
