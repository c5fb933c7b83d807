package main

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const loadIssuer = "https://load.example"

// deployment is a server on a database, and what is needed to start another.
type deployment struct {
	t              *testing.T
	database, seal string
	more           []string // flags
	server         *process
}

func (d *deployment) start() *process {
	d.t.Helper()
	p, err := startServer(d.t.TempDir(), cleanEnv(), append([]string{"--database", d.database, "--seal-file", d.seal, "--issuer", loadIssuer}, d.more...)...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = p.kill() })
	d.server = p
	return p
}

// moving is a run of counterfoil move in a process of its own.
type moving struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	stderr bytes.Buffer
	done   chan struct{}
	err    error
}

// startMove runs counterfoil move; at sees each line it says as it comes.
func startMove(t *testing.T, at func(m *moving, line string), args ...string) *moving {
	t.Helper()
	path, err := exec.LookPath("counterfoil")
	if err != nil {
		t.Fatal(err)
	}
	m := &moving{cmd: exec.Command(path, append([]string{"move"}, args...)...), done: make(chan struct{})}
	m.cmd.Env = cleanEnv()
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.cmd.Process.Kill() })
	go func() {
		defer close(m.done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			m.mu.Lock()
			m.stderr.WriteString(lines.Text() + "\n")
			m.mu.Unlock()
			if at != nil {
				at(m, lines.Text())
			}
		}
		m.err = m.cmd.Wait()
	}()
	return m
}

func (m *moving) wait(t *testing.T) string {
	t.Helper()
	select {
	case <-m.done:
	case <-time.After(time.Minute):
		t.Fatal("counterfoil move does not end")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stderr.String()
}

// A deployment on SQLite moves to PostgreSQL under load. The command is killed
// in each of its phases and run again. Nobody is signed out, whoever was
// revoked stays so, and a verifier goes on where it was.
func TestMoveUnderLoad(t *testing.T) {
	notUnderRace(t)
	target := testPostgres(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	path := filepath.Join(t.TempDir(), "move.db")
	old := &deployment{t: t, database: "sqlite:" + path, seal: sealFile(t)}
	key := commandOutput(t, "api-key", "create", "--name", "load", "--database", prepared(t, old.start, old.database))
	past(t, path, 20000)
	front := newFront(t, old.start().url)
	v := remoteVerifier(t, loadIssuer, front.URL, key)
	crowd := newCrowd(t, front.URL, key, seed)
	defer func() {
		if crowd != nil {
			crowd.end()
		}
	}()
	enough := func(calls int64) {
		t.Helper()
		for from, deadline := crowd.calls.Load(), time.Now().Add(30*time.Second); crowd.calls.Load() < from+calls; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d calls in 30 s", crowd.calls.Load()-from)
			}
		}
	}
	enough(200)

	args := []string{"--database", old.database, "--to", target}
	killedAt := func(text string) string {
		t.Helper()
		said := startMove(t, func(m *moving, line string) {
			if strings.Contains(line, text) {
				_ = m.cmd.Process.Kill()
			}
		}, args...).wait(t)
		if !strings.Contains(said, text) {
			t.Fatalf("it never said %q:\n%s", text, said)
		}
		return said
	}
	killedAt("pass 1")
	enough(100)
	killedAt("writes are refused")
	commandOutput(t, "move", "--database", old.database, "--abort")
	enough(100) // writes among them
	killedAt("writes are refused")
	// Nobody lifts this fence but the next run.
	m := startMove(t, func(m *moving, line string) {
		if strings.Contains(line, "switching") {
			_ = m.cmd.Process.Kill()
		}
	}, args...)
	m.wait(t)
	last := startMove(t, nil, args...)
	said := last.wait(t)
	if last.err != nil && !strings.Contains(said, "everything was moved to postgres://") { // the killed one was fast
		t.Fatalf("%v\n%s", last.err, said)
	}

	// The front turns to the new server once the old one says that it is not ready.
	now := &deployment{t: t, database: target, seal: old.seal}
	front.next.Store(mustURL(t, now.start().url))
	enough(200)
	crowd.end()
	waited, calls := crowd.waited.Load(), crowd.calls.Load()
	live, ended := crowd.check(v)
	t.Logf("%d calls, %d answered 503 first; %d sessions live, %d ended", calls, waited, live, ended)
	if live < 10 || ended < 10 {
		t.Errorf("the load was too small: %d live, %d ended", live, ended)
	}
	if stats := v.Stats(); stats.Snapshots != 1 || !stats.Connected {
		t.Errorf("the verifier did not go on where it was: %d snapshots, connected %v", stats.Snapshots, stats.Connected)
	}

	// The old server mints nothing, refuses to be started, and says where all went.
	direct := &killClient{t: t, url: old.server.url, key: key, http: crowd.http}
	for _, u := range crowd.users[:5] {
		if status, body, err := direct.do("POST", "/v1/auth/refresh", u.session, ""); err != nil || status != 503 {
			t.Errorf("the old server answers %d %s %v", status, body, err)
		}
	}
	if status, body, err := direct.do("GET", "/.well-known/jwks.json", "", ""); err != nil || status != 200 {
		t.Errorf("the old server's key set answers %d %s %v", status, body, err)
	}
	if err := old.server.stop(); err != nil {
		t.Error(err)
	}
	_, err := startServer(t.TempDir(), cleanEnv(), "--database", old.database, "--seal-file", old.seal, "--issuer", loadIssuer)
	if err == nil || !strings.Contains(err.Error(), "everything was moved to postgres://") {
		t.Errorf("starting on the old database says %v", err)
	}
	crowd = nil
}
