//go:build unix

package testenv

import (
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
// free port of 127.0.0.1, no passwords, fsync on. Its methods are for one
// goroutine at a time.
type Postgres struct {
	URL string // of the superuser, on database postgres

	bin     string
	account *syscall.Credential // nil: ours
	dir     string
	port    int
	name    string // what it is called as a standby

	cmd  *exec.Cmd
	done chan struct{} // closed when the server has ended
	err  error         // how it ended; read after done
}

// StartPostgres makes a cluster in a new folder under parent and starts the
// server found in bin (the folder of initdb and postgres). It returns when
// the server takes connections. As root, which PostgreSQL refuses, it runs as
// the user postgres or nobody; parent must let that user enter ([TempDir]).
func StartPostgres(ctx context.Context, bin, parent string) (*Postgres, error) {
	return newPostgres(ctx, bin, parent, func(p *Postgres) error {
		// What initdb writes need not reach the disk: the tests kill servers, not
		// machines. The server itself runs with fsync on.
		return p.run(ctx, "initdb", "--pgdata="+p.data(), "--username=postgres", "--auth=trust",
			"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	})
}

// newPostgres has fill make the cluster, and starts the server.
func newPostgres(ctx context.Context, bin, parent string, fill func(*Postgres) error) (*Postgres, error) {
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "postgres-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{bin: bin, account: account, dir: dir}
	if account != nil {
		err = os.Chown(dir, int(account.Uid), int(account.Gid))
	}
	if err == nil {
		err = fill(p)
	}
	if err == nil {
		err = p.startSomewhere(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	// Not our own environment: PGDATA or PGPORT of a developer's shell
	// would point elsewhere.
	cmd.Env = []string{"PATH=" + p.bin + ":/usr/bin:/bin", "HOME=" + p.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = OwnGroup(p.account, syscall.SIGINT) // SIGINT: a fast shutdown
	return cmd
}

// run runs one of PostgreSQL's programs to its end.
func (p *Postgres) run(ctx context.Context, name string, args ...string) error {
	if out, err := p.command(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// startSomewhere starts the server on a free port. Another process may take
// the port first.
func (p *Postgres) startSomewhere(ctx context.Context) (err error) {
	for range 3 {
		if p.port, err = freePort(); err != nil {
			return err
		}
		p.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.port)
		if err = p.start(ctx); err == nil || !strings.Contains(err.Error(), "already in use") {
			return err
		}
	}
	return err
}

// start starts the server and waits until it takes connections.
func (p *Postgres) start(ctx context.Context) error {
	logFile, err := os.CreateTemp(p.dir, "server-*.log")
	if err != nil {
		return err
	}
	// It outlives ctx, which is for the start.
	p.cmd = p.command(context.Background(), "postgres", "-D", p.data(),
		"-c", "listen_addresses=127.0.0.1", "-c", "port="+strconv.Itoa(p.port),
		"-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "cluster_name="+p.name,
		"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on")
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	if err := errors.Join(p.cmd.Start(), logFile.Close()); err != nil {
		return err
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
	if err := p.ready(ctx, filepath.Join(p.data(), "postmaster.pid")); err != nil {
		text, _ := os.ReadFile(logFile.Name())
		return errors.Join(fmt.Errorf("%w\n%s", err, text), p.end())
	}
	return nil
}

// ready waits until the server has written that it takes connections, as a
// standby those that only read.
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
		if len(lines) < 8 || lines[0] != strconv.Itoa(p.cmd.Process.Pid) {
			continue // of a server that was killed
		}
		switch strings.TrimSpace(lines[7]) {
		case "ready", "standby":
			return nil
		}
	}
}

// Stop ends the server and removes its cluster.
func (p *Postgres) Stop() error {
	return errors.Join(p.Resume(), p.end(), os.RemoveAll(p.dir))
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
