//go:build linux

package stage

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// Postgres is a PostgreSQL server of the benchmark's own, with default
// settings but for the statement counter, which is off until it is asked.
type Postgres struct {
	server *testenv.Postgres
	dir    string
	pid    int
}

// StartPostgres makes a cluster in a temporary folder. Its syncs to disk take
// longer by delay.
func StartPostgres(ctx context.Context, delay time.Duration) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	slow, err := SlowSync(delay)
	if err != nil {
		return nil, err
	}
	// PostgreSQL does not run as root: another user must be able to enter.
	dir, err := os.MkdirTemp("/tmp", "counterfoil-bench-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir}
	if err := p.start(ctx, bin, slow); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Postgres) start(ctx context.Context, bin string, slow []string) error {
	wrappers := filepath.Join(p.dir, "bin")
	if err := errors.Join(os.Chmod(p.dir, 0o755), os.Mkdir(wrappers, 0o755)); err != nil {
		return err
	}
	for name, line := range map[string]string{
		"initdb": fmt.Sprintf("exec %s/initdb \"$@\"", bin),
		"postgres": fmt.Sprintf("exec %s %s/postgres \"$@\" -c shared_preload_libraries=pg_stat_statements",
			strings.Join(slow, " "), bin),
	} {
		if err := os.WriteFile(filepath.Join(wrappers, name), []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
			return err
		}
	}
	var err error
	if p.server, err = testenv.StartPostgres(ctx, wrappers, p.dir); err != nil {
		return err
	}
	var folder string
	if err := p.query(ctx, "postgres", &folder, `SELECT setting FROM pg_settings WHERE name = 'data_directory'`); err != nil {
		return err
	}
	pidFile, err := os.ReadFile(filepath.Join(folder, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(pidFile), "\n")
	if p.pid, err = strconv.Atoi(first); err != nil {
		return err
	}
	return p.track(ctx, "none")
}

// Stop ends the server and removes the cluster.
func (p *Postgres) Stop() error {
	var err error
	if p.server != nil {
		err = p.server.Stop()
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// Create makes a database and returns its URL.
func (p *Postgres) Create(ctx context.Context, name string) (string, error) {
	if err := p.exec(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return p.url(name), p.exec(ctx, name, "CREATE EXTENSION pg_stat_statements")
}

// URL is that of a database.
func (p *Postgres) URL(database string) string { return p.url(database) }

// Exec runs a statement in a database.
func (p *Postgres) Exec(ctx context.Context, database, statement string) error {
	return p.exec(ctx, database, statement)
}

// Int runs a query whose answer is a number.
func (p *Postgres) Int(ctx context.Context, database, query string) (n int64, err error) {
	err = p.query(ctx, database, &n, query)
	return n, err
}

// PIDs are those of the server and of its connections at present.
func (p *Postgres) PIDs() ([]int, error) { return Children(p.pid) }

// track switches the statement counter. Each connection notices at its next
// statement.
func (p *Postgres) track(ctx context.Context, what string) error {
	return errors.Join(p.exec(ctx, "postgres", "ALTER SYSTEM SET pg_stat_statements.track = '"+what+"'"),
		p.exec(ctx, "postgres", "SELECT pg_reload_conf()"))
}

// Count returns how many statements are sent to a database while run runs.
// prepare runs before it: it makes the connections notice that they are counted.
func (p *Postgres) Count(ctx context.Context, database string, prepare, run func() error) (n int, err error) {
	if err := p.track(ctx, "top"); err != nil {
		return 0, err
	}
	if err := prepare(); err != nil {
		return 0, err
	}
	if err := p.exec(ctx, database, "SELECT pg_stat_statements_reset()"); err != nil {
		return 0, err
	}
	if err := run(); err != nil {
		return 0, err
	}
	err = p.query(ctx, database, &n, `SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements s
		JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database() AND query NOT LIKE '%pg_stat_statements%'`)
	return n, errors.Join(err, p.track(ctx, "none"))
}

func (p *Postgres) url(database string) string {
	u, err := url.Parse(p.server.URL)
	if err != nil {
		panic(err) // testenv made it
	}
	u.Path = "/" + database
	return u.String()
}

func (p *Postgres) exec(ctx context.Context, database, statement string) error {
	return p.connected(ctx, database, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statement)
		return err
	})
}

func (p *Postgres) query(ctx context.Context, database string, into any, query string) error {
	return p.connected(ctx, database, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, query).Scan(into) })
}

func (p *Postgres) connected(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, p.url(database))
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close(ctx))
}

// postgresBin finds the folder of the server's programs.
func postgresBin() (string, error) {
	if given := os.Getenv(testenv.PostgresBin); given != "" {
		return given, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb), nil
	}
	return "", fmt.Errorf("found no PostgreSQL: set %s to the folder of initdb and postgres", testenv.PostgresBin)
}
