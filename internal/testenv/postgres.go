//go:build unix

package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a PostgreSQL server of the tests' own: a fresh cluster on a
// free port of 127.0.0.1, no passwords, fsync on.
type Postgres struct {
	URL string // of the superuser, on database postgres

	cmd  *exec.Cmd
	done chan struct{} // closed when the server has ended
	err  error         // how it ended; read after done
	dir  string
}

// StartPostgres makes a cluster in a new folder under parent and starts the
// server found in bin (the folder of initdb and postgres). It returns when
// the server takes connections. As root, which PostgreSQL refuses, it runs as
// the user postgres or nobody; parent must let that user enter.
func StartPostgres(ctx context.Context, bin, parent string) (*Postgres, error) {
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "postgres-")
	if err != nil {
		return nil, err
	}
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	p, err := startPostgres(ctx, bin, dir, account)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func startPostgres(ctx context.Context, bin, dir string, account *syscall.Credential) (*Postgres, error) {
	data := filepath.Join(dir, "data")
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		// Not our own environment: PGDATA or PGPORT of a developer's shell
		// would point elsewhere.
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
		cmd.SysProcAttr = OwnGroup(account, syscall.SIGINT) // SIGINT: a fast shutdown
		return cmd
	}
	// What initdb writes need not reach the disk: the tests kill servers, not
	// machines. The server itself runs with fsync on.
	out, err := command("initdb", "--pgdata="+data, "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	for attempt := range 3 {
		var port int
		if port, err = freePort(); err != nil {
			return nil, err
		}
		logName := filepath.Join(dir, fmt.Sprintf("server-%d.log", attempt))
		logFile, err := os.Create(logName)
		if err != nil {
			return nil, err
		}
		p := &Postgres{
			URL:  fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port),
			done: make(chan struct{}),
			dir:  dir,
		}
		p.cmd = command("postgres", "-D", data,
			"-c", "listen_addresses=127.0.0.1", "-c", "port="+strconv.Itoa(port),
			"-c", "unix_socket_directories=", "-c", "max_connections=300",
			"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on")
		p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
		if err = errors.Join(p.cmd.Start(), logFile.Close()); err != nil {
			return nil, err
		}
		go func() {
			p.err = p.cmd.Wait()
			close(p.done)
		}()
		if err = p.ready(ctx, filepath.Join(data, "postmaster.pid")); err == nil {
			return p, nil
		}
		text, _ := os.ReadFile(logName)
		err = errors.Join(fmt.Errorf("%w\n%s", err, text), p.end())
		if !bytes.Contains(text, []byte("already in use")) || attempt == 2 {
			return nil, err
		}
	}
	return nil, err
}

// ready waits until the server has written that it takes connections.
func (p *Postgres) ready(ctx context.Context, pidFile string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres is not ready: %w", ctx.Err())
		case <-p.done:
			return fmt.Errorf("postgres ended while starting: %w", p.err)
		case <-tick.C:
		}
		text, err := os.ReadFile(pidFile)
		if err != nil {
			continue // not written yet
		}
		lines := strings.Split(string(text), "\n")
		if len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
	}
}

// Stop ends the server and removes its cluster.
func (p *Postgres) Stop() error {
	return errors.Join(p.end(), os.RemoveAll(p.dir))
}

// end asks the server to end, more firmly each time. Its exit status says
// nothing that a caller could use.
func (p *Postgres) end() error {
	for _, ask := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, 20 * time.Second}, {syscall.SIGQUIT, 10 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := p.cmd.Process.Signal(ask.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(ask.wait):
		}
	}
	return fmt.Errorf("postgres (pid %d) does not end", p.cmd.Process.Pid)
}

// unprivileged returns the account under which PostgreSQL runs when we are
// root, and nil when we are not.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

// freePort returns a TCP port that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// findPostgres returns the folder of the server's programs: the one given in
// the environment, else the newest of Debian's, else where the PATH leads.
// Debian keeps the server's programs off the PATH; others link to them there.
func findPostgres() (string, error) {
	if given := os.Getenv(PostgresBin); given != "" {
		return given, completePostgres(given)
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	newestFirst(dirs)
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, dir := range dirs {
		if completePostgres(dir) == nil {
			return dir, nil
		}
	}
	return "", errors.New("found no folder with initdb, postgres and pg_ctl")
}

// newestFirst sorts folders like /usr/lib/postgresql/15/bin by version.
func newestFirst(dirs []string) {
	version := func(dir string) float64 {
		v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
		if err != nil {
			return 0
		}
		return v
	}
	slices.SortFunc(dirs, func(a, b string) int {
		switch va, vb := version(a), version(b); {
		case va > vb:
			return -1
		case va < vb:
			return 1
		default:
			return strings.Compare(a, b)
		}
	})
}

// completePostgres checks that dir holds every program that the tests start.
func completePostgres(dir string) error {
	for _, name := range []string{"initdb", "postgres", "pg_ctl"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%s has no %s: %w", dir, name, err)
		}
	}
	return nil
}
