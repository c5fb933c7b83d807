package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/verify"
)

var relayReady = regexp.MustCompile(`counterfoil relay is ready.*?listen=(https?://[^ ",]+)`)

// startRelay runs `counterfoil relay` and returns when it listens.
func startRelay(t *testing.T, dir, key string, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath("counterfoil")
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, relayReady, exec.Command(path, append([]string{"relay"}, args...)...), dir, cleanEnv("COUNTERFOIL_API_KEY="+key))
}

// startProgram returns when the program's log says that it is ready.
func startProgram(t *testing.T, ready *regexp.Regexp, cmd *exec.Cmd, dir string, env []string) *process {
	t.Helper()
	p := &process{cmd: cmd, log: newLogBuffer(), done: make(chan struct{})}
	cmd.Dir, cmd.Env, cmd.Stdout = dir, env, &p.stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.kill() })
	is := make(chan string, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			p.log.add(line)
			if m := ready.FindStringSubmatch(line); m != nil {
				select {
				case is <- m[1]:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		p.waitErr = p.cmd.Wait()
	}()
	select {
	case p.url = <-is:
	case <-p.done:
		t.Fatalf("it ended before it was ready: %v\n%s", p.waitErr, p.log)
	case <-time.After(time.Minute):
		t.Fatalf("it is not ready\n%s", p.log)
	}
	return p
}

// runLeaf is the verifier program: it answers on a port whether a token holds,
// and what its verifier says of itself.
func runLeaf() {
	v, err := verify.New(context.Background(), verify.Config{
		Issuer: "https://relay.example", Audience: "app", Authority: os.Args[1], APIKey: os.Getenv("COUNTERFOIL_API_KEY"),
	})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", v.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.Handle("GET /live", v.Require(verify.Live())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v.Stats()) })
	fmt.Fprintf(os.Stderr, "leaf is ready listen=http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}

// leaf is that program, seen from outside.
type leaf struct {
	*process
	t *testing.T
}

func (l *leaf) status(path, token string) int {
	l.t.Helper()
	req, err := http.NewRequest(http.MethodGet, l.url+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode
}

func (l *leaf) stats() (s verify.Stats) {
	l.t.Helper()
	res, err := http.Get(l.url + "/stats")
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		l.t.Fatal(err)
	}
	return s
}

// until polls until it is so, and returns how long that took.
func (l *leaf) until(what string, is func() bool) time.Duration {
	l.t.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > time.Minute {
			l.t.Fatalf("%s: not within a minute: %+v\n%s", what, l.stats(), l.log)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// serve → relay → relay → relay → a verifier, each a process: revocations reach
// the verifier; the middle relay is killed, and the authority; what is old is
// told as old, and all comes back.
func TestRelayProcesses(t *testing.T) {
	dir := t.TempDir()
	database := "sqlite:" + filepath.Join(dir, "relay.db")
	address := freeAddress(t)
	serveArgs := []string{"--listen", address, "--database", database, "--issuer", "https://relay.example", "--token-lifetime", "5m"}
	authority, err := startServer(dir, cleanEnv(), serveArgs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = authority.kill() })
	backend := commandOutput(t, "api-key", "create", "--name", "backend", "--database", database)
	key := commandOutput(t, "api-key", "create", "--name", "relays", "--scope", "verify", "--database", database)

	args := make([][]string, 3)
	relays := make([]*process, 3)
	above := authority.url
	for i := range relays {
		args[i] = []string{"--listen", freeAddress(t), "--authority", above, "--issuer", "https://relay.example", "--cache", filepath.Join(dir, fmt.Sprint("cache", i)), "--metrics-listen", "127.0.0.1:0"}
		relays[i] = startRelay(t, dir, key, args[i]...)
		above = relays[i].url
	}
	program, err := exec.LookPath("counterfoil-leaf")
	if err != nil {
		t.Fatal(err)
	}
	l := &leaf{startProgram(t, regexp.MustCompile(`leaf is ready listen=(\S+)`), exec.Command(program, above), dir, cleanEnv("COUNTERFOIL_API_KEY="+key)), t}
	client := &killClient{t: t, url: authority.url, key: backend, http: &http.Client{Timeout: 10 * time.Second}}
	session := func() (f *fate, access string) {
		t.Helper()
		f, err := client.signIn("ann")
		if err != nil {
			t.Fatal(err)
		}
		status, body, err := client.do("POST", "/v1/auth/refresh", f.token, "")
		var got struct {
			AccessToken string `json:"access_token"`
		}
		if err = errors.Join(err, json.Unmarshal(body, &got)); err != nil || status != http.StatusOK {
			t.Fatalf("%d %v %s", status, err, body)
		}
		return f, got.AccessToken
	}
	l.until("the leaf is ready", func() bool { return l.stats().Connected })

	// Healthy: revoked at the authority, refused at the leaf; Live goes through.
	f, token := session()
	if status := l.status("/", token) + l.status("/live", token); status != 400 {
		t.Fatalf("a good token: %d\n%s", status, l.log)
	}
	if err := client.revoke(f); err != nil {
		t.Fatal(err)
	}
	took := l.until("revoked", func() bool { return l.status("/", token) == http.StatusUnauthorized })
	t.Logf("refused behind three relays %v after the answer; age %v", took.Round(time.Microsecond), l.stats().FeedAge)
	if took > time.Second {
		t.Errorf("it took %v", took)
	}

	// The middle relay is killed: the leaf grows old, and takes no more than it says.
	good, goodToken := session()
	if err := relays[1].kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := client.revoke(good); err != nil {
		t.Fatal(err)
	}
	l.until("the cut is noticed", func() bool { return l.stats().FeedAge > 300*time.Millisecond })
	if noticed := time.Since(killed); noticed > 2*time.Second {
		t.Errorf("noticed after %v", noticed)
	}
	if status := l.status("/", goodToken); status != 200 {
		t.Errorf("the default route stopped: %d", status)
	}
	if status := l.status("/live", goodToken); status != http.StatusServiceUnavailable {
		t.Errorf("a live check over a relay that is gone: %d", status)
	}
	if s, gone := l.stats(), time.Since(killed); s.FeedAge < gone-250*time.Millisecond {
		t.Errorf("cut %v ago, and it says %v", gone, s.FeedAge)
	}
	relays[1] = startRelay(t, dir, key, args[1]...)
	took = l.until("the revocation has come", func() bool { return l.status("/", goodToken) == http.StatusUnauthorized })
	t.Logf("back %v after the relay was started again", took.Round(time.Millisecond))
	l.until("healthy again", func() bool { s := l.stats(); return s.Connected && s.FeedAge < time.Second })

	// The authority is killed; a relay is started again meanwhile, from its file.
	_, token = session()
	l.until("a good token", func() bool { return l.status("/", token) == 200 })
	if err := authority.kill(); err != nil {
		t.Fatal(err)
	}
	if err := relays[2].kill(); err != nil {
		t.Fatal(err)
	}
	relays[2] = startRelay(t, dir, key, args[2]...)
	// Until it notices, it still counts as connected to the one that was killed.
	l.until("the leaf follows again, and knows that the authority is gone", func() bool {
		s := l.stats()
		return s.Connected && s.FeedAge > time.Second
	})
	if status := l.status("/", token); status != 200 {
		t.Errorf("the default route stopped with the authority: %d", status)
	}
	if authority, err = startServer(dir, cleanEnv(), serveArgs...); err != nil {
		t.Fatal(err)
	}
	l.until("healthy again", func() bool { s := l.stats(); return s.Connected && s.FeedAge < time.Second })
	f, token = session()
	l.until("a good token", func() bool { return l.status("/", token) == 200 })
	if err := client.revoke(f); err != nil {
		t.Fatal(err)
	}
	l.until("revoked", func() bool { return l.status("/", token) == http.StatusUnauthorized })
	for i, p := range relays {
		metrics := regexp.MustCompile(`metrics=(http\S+)`).FindStringSubmatch(p.log.String())
		res, err := http.Get(metrics[1])
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := fmt.Sprintf("counterfoil_relay_level %d\n", i+1); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("relay %d: no %q in %s", i, want, text)
		}
		if strings.Contains(p.log.String(), key) {
			t.Error("the API key is in the log")
		}
	}
	for i := len(relays) - 1; i >= 0; i-- {
		if err := relays[i].stop(); err != nil {
			t.Errorf("relay %d ended with %v\n%s", i, err, relays[i].log)
		}
	}
}

// freeAddress is one of the loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
