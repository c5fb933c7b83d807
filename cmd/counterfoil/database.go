package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/counterfoil/counterfoil/sqlstore"
)

const (
	defaultDatabase = "sqlite:counterfoil.db"
	// openTimeout bounds the wait for a database that does not answer.
	openTimeout = 15 * time.Second
)

// database is where --database points. Nothing is opened or made before open.
type database struct {
	path string   // of the SQLite file; empty for PostgreSQL
	url  *url.URL // of PostgreSQL

	db    *sql.DB
	store *sqlstore.Store
	redis *redisServers // nil: the sessions are in store
	aside bool          // sessions may be elsewhere: the command does not touch any
}

func databaseFlag(f *flags) *textValue {
	v := textValue(defaultDatabase)
	f.add(&v, "database", "URL", "sqlite:FILE or postgres://USER@HOST/NAME")
	return &v
}

// parseDatabase reads the flag. Its errors never repeat a URL, which may hold
// a password.
func parseDatabase(value string) (*database, error) {
	scheme, rest, ok := strings.Cut(value, ":")
	switch {
	case ok && scheme == "sqlite":
		if rest == "" || rest == ":memory:" {
			return nil, usagef("--database %q: name a file (in memory there is serve --dev)", value)
		}
		return &database{path: rest}, nil
	case ok && (scheme == "postgres" || scheme == "postgresql"):
		u, err := parsePostgreSQL(value)
		if err != nil || !strings.HasPrefix(rest, "//") {
			return nil, usagef("--database: the PostgreSQL URL cannot be read: want postgres://USER:PASSWORD@HOST:PORT/NAME, special characters in it as %%XX; several hosts by comma")
		}
		return &database{url: u}, nil
	}
	return nil, usagef("--database: want sqlite:FILE or postgres://USER@HOST/NAME")
}

func (d *database) isSQLite() bool { return d.path != "" }

// String names the database without its password.
func (d *database) String() string {
	if d.isSQLite() {
		return "sqlite:" + d.path
	}
	// Parameters can hold a password too.
	shown := url.URL{Scheme: d.url.Scheme, User: url.User(d.url.User.Username()), Host: d.url.Host, Path: d.url.Path}
	if d.url.User == nil {
		shown.User = nil
	}
	return shown.String()
}

// databaseError says what is wrong with which database.
type databaseError struct {
	database string
	err      error
}

func (e *databaseError) Error() string { return "database " + e.database + ": " + e.err.Error() }

func (e *databaseError) Unwrap() error { return e.err }

func (d *database) fail(err error) error { return &databaseError{d.String(), err} }

// connect makes the pool and the store. It opens nothing yet.
func (d *database) connect(options ...sqlstore.Option) error {
	if d.db != nil {
		return nil
	}
	var db *sql.DB
	var err error
	if d.isSQLite() {
		db, err = sql.Open("sqlite", sqlstore.SQLiteDSN(d.path))
	} else {
		db, err = openPostgreSQL(d.url)
	}
	if err != nil {
		return d.fail(err)
	}
	connections := poolSize()
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	d.db = db
	if d.aside {
		options = append(options, sqlstore.WithoutSessions())
	}
	if d.isSQLite() {
		d.store = sqlstore.SQLite(db, options...)
	} else {
		d.store = sqlstore.PostgreSQL(db, options...)
	}
	if d.redis != nil {
		d.redis.attach(d.store)
	}
	return nil
}

// connectTimeout bounds, for each host of the URL, how long a connection may
// take to be made. The driver would give a network that swallows everything
// two minutes, in which such attempts hold the places of the pool.
const connectTimeout = 5 * time.Second

// withConnectTimeout leaves a URL that says connect_timeout as it is.
func withConnectTimeout(u *url.URL) string {
	const parameter = "connect_timeout"
	bounded := *u
	if !u.Query().Has(parameter) {
		if bounded.RawQuery != "" {
			bounded.RawQuery += "&"
		}
		bounded.RawQuery += parameter + "=" + strconv.Itoa(int(connectTimeout.Seconds()))
	}
	return bounded.String()
}

// poolSize is how many connections a process takes: enough to keep the cores
// busy while some wait for a disk or a network, and few enough to share a
// PostgreSQL server with others.
func poolSize() int { return max(16, 4*runtime.GOMAXPROCS(0)) }

// open opens a database that is there already. It never migrates: a server of
// an older version may be running on it.
func (d *database) open(ctx context.Context) error {
	if d.isSQLite() {
		found, err := d.checkFile()
		if err != nil {
			return err
		}
		if !found {
			return d.fail(errors.New("there is no such file: start counterfoil serve, or make it with counterfoil migrate"))
		}
	}
	missing, err := d.missing(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := d.refuseForeign(ctx); err != nil {
			return err
		}
		return d.fail(errors.New("its tables are missing, or older than this program: start counterfoil serve, or run counterfoil migrate"))
	}
	return d.openStore(ctx, true, sqlstore.WithoutMigrations())
}

// create opens a database and makes it where there is none. foreign allows to
// make our tables among those of somebody else.
func (d *database) create(ctx context.Context, foreign bool) error {
	if d.isSQLite() {
		if err := d.makeFile(); err != nil {
			return err
		}
	}
	return d.openStore(ctx, foreign)
}

// makeFile makes the SQLite file where there is none.
func (d *database) makeFile() error {
	found, err := d.checkFile()
	if err != nil || found {
		return err
	}
	// Made here, not by SQLite: nobody else may read it.
	file, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return d.fail(withoutPath(err))
	}
	if err := file.Close(); err != nil {
		return d.fail(err)
	}
	return nil
}

func (d *database) openStore(ctx context.Context, foreign bool, options ...sqlstore.Option) error {
	if err := d.connect(options...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if !foreign {
		if err := d.refuseForeign(ctx); err != nil {
			return err
		}
	}
	return d.openWhole(ctx)
}

// checkFile reports whether the SQLite file is there. It refuses what is no
// SQLite database before SQLite would.
func (d *database) checkFile() (found bool, err error) {
	info, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err := os.Stat(filepath.Dir(d.path))
		if err != nil || !dir.IsDir() {
			return false, d.fail(fmt.Errorf("there is no folder %s: make it, or mend the path", filepath.Dir(d.path)))
		}
		return false, nil
	}
	if err != nil {
		return false, d.fail(withoutPath(err))
	}
	if info.IsDir() {
		return false, d.fail(errors.New("this is a folder: name a file in it"))
	}
	file, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		return false, d.fail(withoutPath(err))
	}
	head := make([]byte, len(sqliteMagic))
	_, err = io.ReadFull(file, head)
	if closing := file.Close(); closing != nil {
		return false, d.fail(closing)
	}
	if info.Size() == 0 {
		return true, nil // SQLite takes an empty file for an empty database
	}
	if err != nil || string(head) != sqliteMagic {
		return false, d.fail(errors.New("this file is not a SQLite database"))
	}
	return true, nil
}

// sqliteMagic is how every SQLite file begins (sqlite.org/fileformat.html).
const sqliteMagic = "SQLite format 3\x00"

// withoutPath drops the path from an error that says it again.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// refuseForeign keeps a mistyped --database from putting our tables among
// those of another application.
func (d *database) refuseForeign(ctx context.Context) error {
	query := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`
	if !d.isSQLite() {
		query = `SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema() ORDER BY 1`
	}
	tables, err := d.strings(ctx, query)
	if err != nil {
		return d.fail(err)
	}
	for _, name := range tables {
		if strings.HasPrefix(name, "counterfoil_") {
			return nil
		}
	}
	if len(tables) == 0 {
		return nil
	}
	if len(tables) > 3 {
		tables = append(tables[:3], "…")
	}
	return d.fail(fmt.Errorf("it belongs to another application (tables %s): use another, or let counterfoil migrate --share add tables to this one",
		strings.Join(tables, ", ")))
}

func (d *database) strings(ctx context.Context, query string, args ...any) (list []string, err error) {
	rows, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

// close closes the pool. The store is closed by whoever opened it.
func (d *database) close() error {
	if d.db == nil {
		return nil
	}
	if err := d.db.Close(); err != nil {
		return d.fail(fmt.Errorf("close: %w", err))
	}
	return nil
}
