package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The programs are built once and run as users run them: as processes.
var programs struct {
	sync.Mutex
	dir   string
	built map[string]string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "counterfoil-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs.dir, programs.built = dir, map[string]string{}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build returns the path of the program in a folder of the repository.
func build(t *testing.T, folder string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if path, ok := programs.built[folder]; ok {
		return path
	}
	path := filepath.Join(programs.dir, filepath.Base(folder))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "../"+folder).CombinedOutput()
	if err != nil {
		t.Fatalf("go build %s: %v\n%s", folder, err, out)
	}
	programs.built[folder] = path
	return path
}

// process is a program that runs until stop or the end of its test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	err  error // after done

	mu     sync.Mutex
	output bytes.Buffer
	more   *sync.Cond
}

// start runs a program with the environment added.
func start(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = t.TempDir()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(out)
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), p.output.String())
		}
	})
	return p
}

func (p *process) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		p.mu.Lock()
		p.output.WriteString(line)
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			break
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
	p.mu.Lock()
	p.more.Broadcast()
	p.mu.Unlock()
}

// says waits until the program has printed what matches, and returns the
// first group.
func (p *process) says(pattern string) string {
	p.t.Helper()
	wanted := regexp.MustCompile(pattern)
	tooLate := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer tooLate.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if found := wanted.FindSubmatch(p.output.Bytes()); found != nil {
			return string(found[1])
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended (%v) before it said %s:\n%s", p.cmd.Path, p.err, pattern, p.output.String())
		default:
		}
		p.more.Wait()
	}
}

// stop ends the program as Ctrl-C does, and insists that it goes in peace.
func (p *process) stop() {
	p.t.Helper()
	select {
	case <-p.done:
		return
	default:
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	tooLate := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer tooLate.Stop()
	<-p.done
	if p.err != nil {
		p.t.Errorf("%s did not end well: %v", filepath.Base(p.cmd.Path), p.err)
	}
}

const issuer = "https://app.example"

// authority is a counterfoil serve on SQLite.
type authority struct {
	*process
	t        *testing.T
	database string
	args     []string
	url      string
	key      string // of the backend
}

func startAuthority(t *testing.T, args ...string) *authority {
	t.Helper()
	a := &authority{t: t, database: "sqlite:" + filepath.Join(t.TempDir(), "counterfoil.db"), args: args}
	a.run("127.0.0.1:0")
	a.key = a.apiKey("--name", "backend", "--scope", "sessions")
	return a
}

func (a *authority) run(listen string) {
	a.t.Helper()
	args := append([]string{"serve", "--listen", listen, "--issuer", issuer, "--database", a.database}, a.args...)
	a.process = start(a.t, nil, build(a.t, "cmd/counterfoil"), args...)
	a.url = a.says(`counterfoil is ready.* listen=(http://\S+)`)
}

// again starts it where it was.
func (a *authority) again() {
	a.t.Helper()
	a.run(strings.TrimPrefix(a.url, "http://"))
}

// apiKey makes one beside the running server.
func (a *authority) apiKey(args ...string) string {
	a.t.Helper()
	cmd := exec.Command(build(a.t, "cmd/counterfoil"), append([]string{"api-key", "create", "--database", a.database}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		a.t.Fatalf("api-key create: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// answer is what came back. The members are those that the tests look at.
type answer struct {
	Status int         `json:"-"`
	Header http.Header `json:"-"`
	Text   string      `json:"-"`

	Code         string
	AccessToken  string `json:"access_token"`
	SessionToken string `json:"session_token"`
	Subject      string
	Session      struct{ SID string }
	Device       struct {
		UserAgent string `json:"user_agent"`
		IP        string
	}
}

// call makes a request; body is sent as JSON unless it is nil, header is
// name, value, name, value.
func call(t *testing.T, method, url string, body any, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{Status: res.StatusCode, Header: res.Header, Text: string(data)}
	if strings.Contains(res.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(data, &a); err != nil {
			t.Fatalf("%s %s: %v in %s", method, url, err, data)
		}
	}
	return a
}

// want insists on status and code.
func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	if a.Status != status || a.Code != code {
		t.Fatalf("%d %q, want %d %q: %s", a.Status, a.Code, status, code, a.Text)
	}
	return a
}

type object = map[string]any

// post calls the authority as a backend.
func (a *authority) post(path string, body any) answer {
	a.t.Helper()
	return call(a.t, "POST", a.url+path, body, "Authorization", "Bearer "+a.key)
}
