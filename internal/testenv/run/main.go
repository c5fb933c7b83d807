//go:build unix

// Command run prepares the machine for the tests (see package testenv) and
// then runs every check of this repository, or a given command:
//
//	run                      every check, as make test does
//	run -- go test ./sqlstore     one command with the services of the tests
//	run fuzz -time 30s       every fuzz target in turn, for the given time each
//
// It ends what it started, on failure and on a signal too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

func main() {
	// Linux ends the servers when the thread that started them ends, so that
	// thread is to live as long as we do.
	runtime.LockOSThread()
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "testenv: interrupted")
		return 130
	case err == nil:
		return 0
	}
	fmt.Fprintln(os.Stderr, "testenv:", err)
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	return 1
}

func dispatch(ctx context.Context, args []string) error {
	keepFilesPrivate()
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return check(ctx, root)
	}
	switch {
	case args[0] == "--" && len(args) > 1:
		return with(ctx, root, args[1:])
	case args[0] == "fuzz":
		flags := flag.NewFlagSet("fuzz", flag.ExitOnError)
		each := flags.Duration("time", 30*time.Second, "how long each target runs")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return fuzz(ctx, root, *each)
	}
	return errors.New("usage: run [-- command … | fuzz [-time 30s]]")
}

// with runs one command with the services of the tests.
func with(ctx context.Context, root string, args []string) (err error) {
	env, err := testenv.Start(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	r := &runner{root: root, environ: env.Environ(), out: os.Stdout}
	return r.command(ctx, "", nil, args...)
}

// moduleRoot returns the folder of the nearest go.mod above the current one.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("run this inside of the repository: no go.mod here or above")
		}
		dir = up
	}
}

// keepFilesPrivate marks every inherited file as ours alone. A caller may
// hold a lock through an open file; a server that inherited it would hold the
// lock too.
func keepFilesPrivate() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // not Linux
	}
	for _, entry := range entries {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
