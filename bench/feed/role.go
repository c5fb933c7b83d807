//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// roles are what this program can be in a process of its own, driven over its
// standard input and output.
var roles = map[string]func() any{
	"verifiers": func() any { return new(Verifiers) },
	"broadcast": func() any { return new(Broadcast) },
	"listeners": func() any { return new(Listeners) },
}

// pipes are standard input and output as one connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// serveRole serves the role until this program's standard input ends.
func serveRole(name string) error {
	server := rpc.NewServer()
	if err := server.RegisterName("Role", roles[name]()); err != nil {
		return err
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
	return nil
}

// role is such a process, seen from outside.
type role struct {
	*rpc.Client
	cmd *exec.Cmd
}

func startRole(name string) (*role, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, name)
	cmd.Env = append(os.Environ(), oneProcessor)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = testenv.OwnGroup(nil, syscall.SIGKILL)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &role{rpc.NewClient(pipes{out, in}), cmd}, nil
}

// oneProcessor is what every measured process has.
const oneProcessor = "GOMAXPROCS=1"

// Stop ends the process.
func (r *role) Stop() error {
	err := r.Close()
	if errors.Is(err, rpc.ErrShutdown) {
		err = nil
	}
	timer := time.AfterFunc(10*time.Second, func() { _ = r.cmd.Process.Kill() }) // it may have ended
	defer timer.Stop()
	if waited := r.cmd.Wait(); waited != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", r.cmd.Args[1], waited))
	}
	return err
}

func (r *role) do(method string, args, reply any) error {
	if err := r.Call("Role."+method, args, reply); err != nil {
		return fmt.Errorf("%s: %s: %w", r.cmd.Args[1], method, err)
	}
	return nil
}

// all has several processes do the same at once. args and reply get their place.
func all(processes []*role, method string, args func(i int) any, reply func(i int) any) error {
	calls := make([]*rpc.Call, len(processes))
	for i, p := range processes {
		calls[i] = p.Go("Role."+method, args(i), reply(i), nil)
	}
	var errs []error
	for i, call := range calls {
		if done := <-call.Done; done.Error != nil {
			errs = append(errs, fmt.Errorf("%s %d: %s: %w", processes[i].cmd.Args[1], i, method, done.Error))
		}
	}
	return errors.Join(errs...)
}

// None is an empty argument or answer. The field is there since gob wants one.
type None struct{ Nothing bool }

// mono is the machine's monotonic clock, which all its processes share, in
// nanoseconds.
func mono() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is no Linux without it
	}
	return t.Nano()
}

// sleepUntil returns at a time of the monotonic clock, or soon after.
func sleepUntil(at int64) {
	if left := time.Duration(at - mono()); left > 0 {
		time.Sleep(left)
	}
}
