package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is the command too when it is called by its name, so that
// tests start real processes and the race detector sees them.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"counterfoil": main, "counterfoil-leaf": runLeaf})
}

// process is a server that a test started.
type process struct {
	url     string // where it listens
	cmd     *exec.Cmd
	log     *logBuffer
	stdout  strings.Builder
	done    chan struct{}
	waitErr error
}

// logBuffer keeps what a server logs while it is read line by line.
type logBuffer struct {
	mu    sync.Mutex
	text  strings.Builder
	added chan struct{} // closed and replaced with each line
}

func newLogBuffer() *logBuffer { return &logBuffer{added: make(chan struct{})} }

// changed is closed when there is more than now.
func (b *logBuffer) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.added
}

func (b *logBuffer) add(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.WriteString(line)
	close(b.added)
	b.added = make(chan struct{})
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var readyLine = regexp.MustCompile(`counterfoil is ready.*?listen"?[=:]"?(https?://[^ ",]+)`)

// startServer runs `counterfoil serve` with a free port and returns when it
// says that it is ready.
func startServer(dir string, env []string, args ...string) (*process, error) {
	path, err := exec.LookPath("counterfoil")
	if err != nil {
		return nil, err
	}
	args = append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)
	p := &process{cmd: exec.Command(path, args...), log: newLogBuffer(), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = env
	p.cmd.Stdout = &p.stdout
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			p.log.add(line)
			if m := readyLine.FindStringSubmatch(line); m != nil {
				ready <- m[1]
			}
			if err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
		p.waitErr = p.cmd.Wait()
	}()
	select {
	case p.url = <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("serve ended before it was ready: %w\n%s", p.waitErr, p.log)
	case <-time.After(time.Minute):
		return nil, errors.Join(fmt.Errorf("serve is not ready\n%s", p.log), p.kill())
	}
}

// stop asks the server to end, and returns how it ended.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.waitErr
	case <-time.After(time.Minute):
		return errors.Join(fmt.Errorf("serve does not end\n%s", p.log), p.kill())
	}
}

// kill is kill -9, by process id.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// cleanEnv is an environment without any of our variables.
func cleanEnv(extra ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, envPrefix) {
			env = append(env, v)
		}
	}
	return append(env, extra...)
}
