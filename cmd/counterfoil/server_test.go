package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// halfRequest opens a request whose body does not come yet.
func halfRequest(t *testing.T, p *process) (net.Conn, string) {
	t.Helper()
	const body = `{"email":"ann@example.org","password":"four paper boats at noon","transport":"body"}`
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /v1/auth/sign-up HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	if err != nil {
		t.Fatal(err)
	}
	// The server asks for the body when the handler reads it: it is under way.
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "100") {
		t.Fatalf("%q %v", line, err)
	}
	return conn, body
}

func testServer(t *testing.T, args ...string) *process {
	t.Helper()
	p, err := startServer(t.TempDir(), cleanEnv(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.kill() })
	return p
}

// SIGTERM lets a request under way finish, then ends the server with 0.
func TestGracefulShutdown(t *testing.T) {
	p := testServer(t)
	conn, body := halfRequest(t, p)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.waitLog(t, "msg=\"stopping")
	if _, err := conn.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err == nil && answer.StatusCode == http.StatusContinue {
		answer, err = http.ReadResponse(reader, nil)
	}
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatalf("the request under way was not finished: %v %v", answer, err)
	}
	<-p.done
	if p.waitErr != nil {
		t.Errorf("it ended with %v", p.waitErr)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://")); err == nil {
		t.Error("it still listens")
	}
}

// A request that does not finish is cut off after --shutdown-timeout.
func TestShutdownTimeout(t *testing.T) {
	p := testServer(t, "--shutdown-timeout", "50ms")
	halfRequest(t, p)
	if err := p.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(p.log.String(), "cut off") {
		t.Errorf("the log does not say so:\n%s", p.log)
	}
}

// The second signal does not wait.
func TestSecondSignal(t *testing.T) {
	p := testServer(t, "--shutdown-timeout", "10m")
	halfRequest(t, p)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.waitLog(t, "msg=\"stopping")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.done
	var exit *exec.ExitError
	if !errors.As(p.waitErr, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("it ended with %v, want exit code %d", p.waitErr, exitFailed)
	}
	if !strings.Contains(p.log.String(), "ended at once") {
		t.Errorf("it does not say so:\n%s", p.log)
	}
}

// SEC-117: no more connections at once than allowed; a closed one makes room.
func TestConnectionLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimit(inner, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- conn
		}
	}()
	for range 3 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first, second := <-accepted, <-accepted
	if len(l.slots) != 2 {
		t.Errorf("%d slots are taken, want 2", len(l.slots))
	}
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	default:
	}
	first.Close()
	first.Close() // twice frees one
	third := <-accepted
	second.Close()
	third.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
}

// An issuer with a path is served with the path and without it.
func TestIssuerPath(t *testing.T) {
	h := underPath(issuerPath("https://app.example/auth"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.URL.Path)
	}))
	for path, want := range map[string]string{
		"/auth/v1/sessions": "/v1/sessions",
		"/v1/sessions":      "/v1/sessions",
		"/authority":        "/authority",
		"/.well-known/oauth-authorization-server/auth": "/.well-known/oauth-authorization-server",
		"/.well-known/oauth-authorization-server":      "/.well-known/oauth-authorization-server",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if got := w.Body.String(); got != want {
			t.Errorf("%s reaches %s, want %s", path, got, want)
		}
	}
}

// waitLog returns when the server has logged the text.
func (p *process) waitLog(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed := p.log.changed()
		if strings.Contains(p.log.String(), text) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the log never said %s:\n%s", text, p.log)
		}
	}
}

// A command that waits for input ends at the first signal.
func TestInterruptedInput(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	stdin, writer := io.Pipe()
	defer writer.Close()
	var stderr strings.Builder
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"token", "inspect"}, &app{stdin: stdin, stdout: io.Discard, stderr: &stderr})
	}()
	if _, err := writer.Write([]byte("eyJ")); err != nil { // it reads
		t.Fatal(err)
	}
	interrupt()
	if code := <-ended; code != exitFailed || stderr.String() != "counterfoil: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
}
