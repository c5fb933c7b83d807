//go:build unix

// Package testenv prepares what Counterfoil's tests run against: it installs
// missing programs with apt-get and npm, starts a private PostgreSQL in a
// temporary folder, and names all of it in environment variables. It is used
// by the test driver (internal/testenv/run) and by tests that need a database
// server of their own. It is never linked into the counterfoil binary.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The variables that tests read. A test that needs one and does not find it
// skips, unless All is set: then it fails.
const (
	All         = "COUNTERFOIL_TEST_ALL"          // "1": nothing may be skipped
	PostgresURL = "COUNTERFOIL_TEST_POSTGRES"     // postgres:// URL of a superuser on a private server
	PostgresBin = "COUNTERFOIL_TEST_POSTGRES_BIN" // folder of initdb, postgres and pg_ctl
	ChromiumBin = "COUNTERFOIL_TEST_CHROMIUM"     // path of the browser's binary
	NodeModules = "COUNTERFOIL_TEST_NODE_MODULES" // folder whose node_modules holds the npm packages of the tests
	NginxBin    = "COUNTERFOIL_TEST_NGINX"        // path of nginx's binary
	CaddyBin    = "COUNTERFOIL_TEST_CADDY"        // path of Caddy's binary
	RedisBin    = "COUNTERFOIL_TEST_REDIS"        // path of redis-server, 7 or newer
	RedisURL    = "COUNTERFOIL_TEST_REDIS_URL"    // redis:// URL of a private server that tests share, each with a key prefix of its own
)

// Env is a prepared machine. Close ends what Start began.
type Env struct {
	dir   string
	vars  []string
	stops []func() error
}

// Start installs what is missing, starts the services and returns the
// environment in which tests run. root is the folder of the module. What is
// done is told on log, a line each. If anything cannot be had, Start undoes
// what it began and says what is missing.
func Start(ctx context.Context, root string, log io.Writer) (*Env, error) {
	dir, err := TempDir()
	if err != nil {
		return nil, err
	}
	e := &Env{dir: dir}
	if err := e.start(ctx, root, log); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Env) start(ctx context.Context, root string, log io.Writer) error {
	if err := e.install(ctx, log); err != nil {
		return err
	}
	bin, err := findPostgres()
	if err != nil {
		return err
	}
	pg, err := StartPostgres(ctx, bin, e.dir)
	if err != nil {
		return err
	}
	e.stops = append(e.stops, pg.Stop)
	fmt.Fprintf(log, "postgres  %s  (%s)\n", pg.URL, bin)

	chromium, err := findChromium()
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "chromium  %s\n", chromium)

	nginx, err := findNginx()
	if err != nil {
		return err
	}
	caddy, err := findCaddy()
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "proxies   %s  %s\n", nginx, caddy)

	redis, err := findRedis()
	if err != nil {
		return err
	}
	shared, err := StartRedis(ctx, redis, e.dir)
	if err != nil {
		return err
	}
	e.stops = append(e.stops, shared.Stop)
	fmt.Fprintf(log, "redis     %s  (%s)\n", shared.URL, redis)

	node := filepath.Join(root, "test", "node")
	if err := installNodeModules(ctx, node, log); err != nil {
		return err
	}
	fmt.Fprintf(log, "node      %s\n", node)
	spa := filepath.Join(root, "examples", "spa")
	if err := installNodeModules(ctx, spa, log); err != nil {
		return err
	}
	fmt.Fprintf(log, "vite      %s\n", spa)

	e.vars = []string{
		All + "=1",
		PostgresURL + "=" + pg.URL,
		PostgresBin + "=" + bin,
		ChromiumBin + "=" + chromium,
		NodeModules + "=" + node,
		NginxBin + "=" + nginx,
		CaddyBin + "=" + caddy,
		RedisBin + "=" + redis,
		RedisURL + "=" + shared.URL,
	}
	return nil
}

// Environ returns the process's environment with the variables of the tests
// added, in the form that exec.Cmd wants.
func (e *Env) Environ() []string {
	return append(os.Environ(), e.vars...)
}

// Close stops the services, last started first, and removes the temporary
// folder. It touches nothing that Start did not begin.
func (e *Env) Close() error {
	var errs []error
	for i := len(e.stops) - 1; i >= 0; i-- {
		errs = append(errs, e.stops[i]())
	}
	e.stops = nil
	errs = append(errs, os.RemoveAll(e.dir))
	return errors.Join(errs...)
}

// TempDir makes a temporary folder that another user can enter: PostgreSQL
// does not run as root, so its files belong to someone else. The caller removes it.
func TempDir() (string, error) {
	parent := os.TempDir()
	if os.Geteuid() == 0 && !enterable(parent) {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "counterfoil-test-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// enterable reports whether every user may enter dir.
func enterable(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}
