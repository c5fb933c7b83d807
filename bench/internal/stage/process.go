//go:build linux

// Package stage builds, starts and ends what is measured: the counterfoil
// binary, PostgreSQL and the programs that it is compared with, each in a
// process of its own.
package stage

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// Process is a server that takes requests.
type Process struct {
	Address string // host:port
	PID     int
	Started time.Duration // from its start to its first good answer

	cmd    *exec.Cmd
	done   chan struct{}
	output output
}

// output keeps what a process says, for when it fails.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Start runs a command whose server listens on address, and returns when it
// answers 200 to GET path.
func Start(ctx context.Context, address, path string, environ []string, command ...string) (*Process, error) {
	return start(ctx, "http", address, path, environ, command)
}

func start(ctx context.Context, scheme, address, path string, environ, command []string) (*Process, error) {
	p := &Process{Address: address, done: make(chan struct{})}
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = testenv.OwnGroup(nil, syscall.SIGTERM)
	start := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.PID = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait() // how it ended says nothing that its output does not
		close(p.done)
	}()
	if err := p.answers(ctx, scheme+"://"+address+path); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", command[0], err, p.output.String()), p.Stop())
	}
	p.Started = time.Since(start)
	return p, nil
}

// answers asks until the first 200.
func (p *Process) answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Whose certificate it is does not matter: it is a process of ours.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no good answer: %w", ctx.Err())
		case <-p.done:
			return errors.New("it ended while starting")
		case <-tick.C:
		}
		response, err := client.Get(url)
		if err != nil {
			continue // not listening yet
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return nil
		}
	}
}

// Stop ends the process.
func (p *Process) Stop() error {
	for _, ask := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, 10 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := p.cmd.Process.Signal(ask.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(ask.wait):
		}
	}
	return fmt.Errorf("process %d does not end", p.PID)
}

// FreeAddress returns an address of the loopback that nobody listens on.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
