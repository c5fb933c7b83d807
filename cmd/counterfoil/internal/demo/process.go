package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 8 * time.Second
)

// Process is a child process of the demo. Its methods are safe for concurrent
// use.
type Process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   string
	from  int64         // where its part of the log begins
	done  chan struct{} // closed when it has ended
}

// Start runs this very program with args as a child. config goes to its
// standard input, which stays open: its end tells the child to end, also when
// we are killed. ready receives what the child reports once it serves. What it
// logs goes to the file log.
func Start(ctx context.Context, log string, config, ready any, args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	told, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	from, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	// Not CommandContext: a request that starts the child does not own it.
	cmd := exec.Command(self, args...)
	cmd.Stderr = file
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := errors.Join(cmd.Start(), file.Close()); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, stdin: stdin, log: log, from: from, done: make(chan struct{})}
	answer := make(chan error, 1)
	go func() {
		_, err := stdin.Write(append(told, '\n'))
		if err == nil {
			err = json.NewDecoder(stdout).Decode(ready)
		}
		answer <- err
		// The pipe must be empty before Wait. How the child ended is in its log.
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		close(p.done)
	}()

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.Stop()
		if said := p.LastLine(); said != "" {
			return nil, fmt.Errorf("start %s: %s", strings.Join(args, " "), said)
		}
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	return p, nil
}

// LastLine is what the process logged last, or empty.
func (p *Process) LastLine() string {
	text, err := os.ReadFile(p.log)
	if err != nil || int64(len(text)) <= p.from {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text[p.from:])), "\n")
	return lines[len(lines)-1]
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop asks the process to end, waits, and kills it if it does not.
func (p *Process) Stop() {
	// Closing fails when it was closed; killing, when it has ended.
	_ = p.stdin.Close()
	select {
	case <-p.done:
		return
	case <-time.After(stopTimeout):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// errByHand says that somebody started a part of the demo alone.
var errByHand = errors.New("this is a part of counterfoil demo, which starts it: run counterfoil demo")

// Run is the child's side of [Start]: it reads the configuration from stdin
// and calls serve with a context that ends when stdin does. serve calls ready
// with what the parent waits for.
func Run[C any](ctx context.Context, stdin io.Reader, stdout io.Writer, serve func(ctx context.Context, config C, ready func(any) error) error) error {
	var config C
	d := json.NewDecoder(stdin)
	if err := d.Decode(&config); err != nil {
		return errByHand
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		// Whatever ends it, the parent is gone.
		_, _ = io.Copy(io.Discard, stdin)
	}()
	return serve(ctx, config, func(told any) error { return json.NewEncoder(stdout).Encode(told) })
}
