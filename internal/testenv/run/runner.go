//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// runner runs commands and keeps what the recap needs.
type runner struct {
	root    string
	environ []string
	out     io.Writer
	results []result
}

// result is how one step ended.
type result struct {
	step    string
	took    time.Duration
	err     error
	details []string // lines that say what failed
}

// step runs one named part of the whole. A failed step does not keep the
// later ones from running: one run shows everything that is wrong.
func (r *runner) step(ctx context.Context, name string, run func(ctx context.Context) error) {
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(r.out, "\n=== %s\n", name)
	r.results = append(r.results, result{step: name})
	began := time.Now()
	err := run(ctx)
	last := &r.results[len(r.results)-1]
	last.took, last.err = time.Since(began), err
	if err != nil {
		fmt.Fprintf(r.out, "%s: %v\n", name, err)
	}
	if out, ok := r.out.(*turns); ok {
		out.flush()
	}
}

// command runs a program in dir (relative to the module) with extra
// environment, prints what it prints, and remembers the lines that tell of
// failed tests. What it leaves behind in its process group is ended.
func (r *runner) command(ctx context.Context, dir string, extra []string, args ...string) error {
	where := ""
	if dir != "" && dir != "." {
		where = "cd " + dir + " && "
	}
	fmt.Fprintf(r.out, "$ %s%s\n", where, strings.Join(append(extra[:len(extra):len(extra)], args...), " "))

	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = filepath.Join(r.root, dir)
	cmd.Env = append(r.environ[:len(r.environ):len(r.environ)], extra...)
	// A group of its own: an interrupt comes from us, once, and the services
	// outlive the tests that use them.
	cmd.SysProcAttr = testenv.OwnGroup(nil, syscall.SIGTERM)
	// On SIGINT go test removes its temporary files. Others ignore it: the
	// background jobs of a shell, for one.
	firmer := time.AfterFunc(time.Hour, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) })
	firmer.Stop()
	defer firmer.Stop()
	cmd.Cancel = func() error {
		firmer.Reset(2 * time.Second)
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	}
	cmd.WaitDelay = 15 * time.Second
	var failures failureLines
	out := io.MultiWriter(r.out, &failures)
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if cmd.Process != nil {
		if left := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); left != nil && !errors.Is(left, syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("processes left by %s: %w", args[0], left))
		}
	}
	if err != nil && len(r.results) > 0 {
		last := &r.results[len(r.results)-1]
		last.details = append(last.details, failures.lines...)
	}
	return err
}

// output runs a program quietly and returns what it prints.
func (r *runner) output(ctx context.Context, dir string, extra []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = filepath.Join(r.root, dir)
	cmd.Env = append(r.environ[:len(r.environ):len(r.environ)], extra...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String(), nil
}

// recap prints a line for each step and returns an error that names those
// that failed.
func (r *runner) recap(total time.Duration) error {
	fmt.Fprintf(r.out, "\n=== recap\n")
	var failed []string
	for _, res := range r.results {
		word := "ok  "
		if res.err != nil {
			word = "FAIL"
			failed = append(failed, res.step)
		}
		fmt.Fprintf(r.out, "%s  %-34s %7.1fs\n", word, res.step, res.took.Seconds())
		for _, line := range res.details {
			fmt.Fprintf(r.out, "      %s\n", line)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	fmt.Fprintf(r.out, "PASS  %d steps in %s\n", len(r.results), total.Round(time.Second))
	return nil
}

// failureLines keeps the lines of go test that say what failed.
type failureLines struct {
	rest  []byte
	lines []string
}

func (f *failureLines) Write(p []byte) (int, error) {
	f.rest = append(f.rest, p...)
	for {
		i := bytes.IndexByte(f.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := string(f.rest[:i])
		f.rest = f.rest[i+1:]
		trimmed := strings.TrimSpace(line)
		for _, prefix := range []string{"--- FAIL", "FAIL\t", "panic: ", "WARNING: DATA RACE"} {
			if strings.HasPrefix(trimmed, prefix) {
				f.lines = append(f.lines, strings.TrimRight(line, " "))
				break
			}
		}
	}
}
