//go:build linux

package faults

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

const readyText = "counterfoil is ready"

// process is a server that a test started, and may start again after its end.
type process struct {
	t    *testing.T
	url  string // where it listens, the same after each start
	argv []string
	env  []string
	dir  string

	cmd *exec.Cmd
	log *logBuffer
	end chan struct{} // closed when it has ended
	err error         // how; read after end
}

// logBuffer keeps what a server logs.
type logBuffer struct {
	mu    sync.Mutex
	text  strings.Builder
	added chan struct{} // closed and replaced with each line
}

func newLogBuffer() *logBuffer { return &logBuffer{added: make(chan struct{})} }

func (b *logBuffer) add(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.WriteString(line)
	close(b.added)
	b.added = make(chan struct{})
}

func (b *logBuffer) read() (text string, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String(), b.added
}

// serve describes `counterfoil serve` on a port of its own. It is not started.
func serve(t *testing.T, args ...string) *process {
	t.Helper()
	addr := freeAddr(t)
	p := &process{
		t: t, url: "http://" + addr, env: cleanEnv(), dir: t.TempDir(),
		argv: append([]string{binary, "serve", "--listen", addr, "--pages=false"}, args...),
	}
	t.Cleanup(p.tidy)
	return p
}

// freeAddr is an address on loopback that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start returns when the server says that it is ready.
func (p *process) start() {
	p.t.Helper()
	if err := p.launch(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.awaitLog(readyText); err != nil {
		p.t.Fatal(err)
	}
}

// launch starts the server and does not wait.
func (p *process) launch() error {
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Dir, p.cmd.Env = p.dir, p.env
	p.cmd.SysProcAttr = testenv.OwnGroup(nil, syscall.SIGKILL)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	cmd, log, end := p.cmd, newLogBuffer(), make(chan struct{})
	p.log, p.end = log, end
	go func() {
		defer close(end)
		for lines := bufio.NewReader(stderr); ; {
			line, err := lines.ReadString('\n')
			log.add(line)
			if err != nil {
				break
			}
		}
		p.err = cmd.Wait()
	}()
	return nil
}

// awaitLog returns when the log of the present start has the text.
func (p *process) awaitLog(want string) error {
	deadline := time.After(patience)
	for {
		text, more := p.log.read()
		if strings.Contains(text, want) {
			return nil
		}
		select {
		case <-more:
		case <-p.end:
			if text, _ = p.log.read(); strings.Contains(text, want) {
				return nil
			}
			return fmt.Errorf("the server ended: %w\n%s", p.err, text)
		case <-deadline:
			return fmt.Errorf("the log never said %q:\n%s", want, text)
		}
	}
}

// signal reaches this process and no other.
func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.end
}

// pause stops the process where it is; resume lets it go on.
func (p *process) pause()  { p.t.Helper(); p.signal(syscall.SIGSTOP) }
func (p *process) resume() { p.t.Helper(); p.signal(syscall.SIGCONT) }

// tidy ends what still runs, and shows the log of a failed test.
func (p *process) tidy() {
	if p.end == nil {
		return
	}
	p.kill()
	if p.t.Failed() {
		text, _ := p.log.read()
		const most = 2000
		if len(text) > most {
			text = "…" + text[len(text)-most:]
		}
		p.t.Logf("log of %s:\n%s", p.url, text)
	}
}
