package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two servers and the command line on one database: a page that watches its
// session at one of them knows within a second what happens at the others.
// A server that is stopped does not wait for the pages.
func TestWatchAcrossNodes(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		testWatch(t, "sqlite:"+filepath.Join(t.TempDir(), "watch.db"))
	})
	t.Run("PostgreSQL", func(t *testing.T) { testWatch(t, testPostgres(t)) })
}

func testWatch(t *testing.T, database string) {
	sealFile := filepath.Join(t.TempDir(), "watch.seal")
	if err := os.WriteFile(sealFile, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *process {
		t.Helper()
		p, err := startServer(t.TempDir(), cleanEnv(), "--database", database, "--seal-file", sealFile, "--issuer", "https://watch.example", "--drain", "0s")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.kill() })
		return p
	}
	here := start()
	there := start()

	sid, token := watchSignIn(t, here, "sign-up")
	stream := watchAt(t, here, token)
	stream.wants("hello", sid)
	_, other := watchSignIn(t, there, "sign-in")
	began := time.Now()
	watchPost(t, there, "sign-out", other, map[string]any{"which": "others"})
	stream.wants("ended", `"reason":"signed_out_everywhere"`)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the page knew after %s", took)
	}

	// The command line has no server to tell: both find it in the log.
	sid, token = watchSignIn(t, here, "sign-in")
	stream = watchAt(t, there, token)
	stream.wants("hello", sid)
	commandOutput(t, "session", "revoke", sid, "--database", database)
	stream.wants("ended", `"code":"session_revoked"`)

	_, token = watchSignIn(t, here, "sign-in")
	stream = watchAt(t, here, token)
	stream.wants("hello", "")
	began = time.Now()
	if err := here.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopped after %s", took)
	}
	if rest, err := io.ReadAll(stream.body); err != nil || strings.Contains(string(rest), "event: ended") {
		t.Errorf("the stream ends with %q, %v", rest, err)
	}
	if err := there.stop(); err != nil {
		t.Error(err)
	}
}

func watchSignIn(t *testing.T, p *process, call string) (sid, token string) {
	t.Helper()
	answer := watchPost(t, p, call, "", map[string]any{"email": "ann@example.org", "password": "turbine ladder quietly orchid", "transport": "body"})
	session, _ := answer["session"].(map[string]any)
	sid, _ = session["sid"].(string)
	token, _ = answer["session_token"].(string)
	return sid, token
}

func watchPost(t *testing.T, p *process, call, token string, body map[string]any) (answer map[string]any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/auth/"+call, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil && err != io.EOF || res.StatusCode >= 300 {
		t.Fatalf("%s: %s %v %v", call, res.Status, answer, err)
	}
	return answer
}

type watchedStream struct {
	t    *testing.T
	body *bufio.Reader
}

func watchAt(t *testing.T, p *process, token string) *watchedStream {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/v1/auth/session/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	return &watchedStream{t, bufio.NewReader(res.Body)}
}

// wants reads the next event, whose data has the fragment.
func (s *watchedStream) wants(name, fragment string) {
	s.t.Helper()
	var event string
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the stream ends before %s: %v", name, err)
		}
		if found, ok := strings.CutPrefix(line, "event: "); ok {
			event = strings.TrimSpace(found)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if event != name || !strings.Contains(data, fragment) {
				s.t.Fatalf("%s %s, want %s with %s", event, data, name, fragment)
			}
			return
		}
	}
}
