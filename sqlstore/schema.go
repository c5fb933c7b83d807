package sqlstore

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"time"
)

//go:embed migrations
var migrationFiles embed.FS

// SQLiteMigrations returns what [Store.Open] runs on SQLite: numbered files,
// with the default table prefix. They can be run by another tool, each file
// whole and once, in order; [WithoutMigrations] then makes Open only check.
func SQLiteMigrations() fs.FS { return migrationsOf(sqlite) }

// PostgreSQLMigrations is [SQLiteMigrations] for PostgreSQL.
func PostgreSQLMigrations() fs.FS { return migrationsOf(postgresql) }

func migrationsOf(d dialect) fs.FS {
	sub, err := fs.Sub(migrationFiles, "migrations/"+string(d))
	if err != nil {
		return embed.FS{} // not with a name of ours
	}
	return sub
}

// application marks the tables as ours.
const application = "counterfoil"

// migration is one file. Each notes its version in table schema by itself.
type migration struct {
	version  int64
	name     string
	sql      string // with the default prefix
	checksum string
}

func migrations(d dialect) ([]migration, error) {
	files := migrationsOf(d)
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var all []migration
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		all = append(all, migration{int64(i + 1), name, string(text), hex.EncodeToString(sum[:8])})
	}
	return all, nil
}

func (m migration) statements(prefix string) []string {
	text := strings.ReplaceAll(m.sql, defaultPrefix, prefix)
	var list []string
	for statement := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(statement) != "" {
			list = append(list, statement)
		}
	}
	return list
}

var created = regexp.MustCompile(`(?m)^CREATE (?:TABLE|SEQUENCE) ` + defaultPrefix + `(\w+)`)

// tables are the names, without prefix, that the migrations make.
func tables(all []migration) (names []string) {
	for _, m := range all {
		for _, match := range created.FindAllStringSubmatch(m.sql, -1) {
			names = append(names, match[1])
		}
	}
	return names
}

// pending checks the schema as it is and returns the migrations that are
// missing. Whatever is not ours is an error. It only reads.
func (s *Store) pending(ctx context.Context, on runner) ([]migration, error) {
	all, err := migrations(s.dialect)
	if err != nil {
		return nil, err
	}
	there, err := s.present(ctx, on, tables(all))
	if err != nil {
		return nil, err
	}
	if len(there) == 0 {
		return all, nil
	}
	foreign := func(why string) error {
		return fmt.Errorf("the database has tables that are not Counterfoil's (%s): %s; use another database or table prefix",
			strings.Join(there, ", "), why)
	}
	if there[0] != s.settings.prefix+"schema" {
		return nil, foreign("there is no table " + s.settings.prefix + "schema")
	}
	var applied []migration
	err = each(ctx, on, func(r *row) error {
		m := migration{version: r.int(), name: r.text(), checksum: r.text()}
		applied = append(applied, m)
		return nil
	}, `SELECT version, application, checksum FROM {schema} ORDER BY version`)
	switch {
	case err != nil && (unavailable(err) || ctx.Err() != nil):
		return nil, err
	case err != nil:
		return nil, foreign(err.Error())
	case len(applied) == 0:
		return nil, foreign("table " + s.settings.prefix + "schema is empty")
	}
	for i, m := range applied {
		switch {
		case m.name != application || m.version != int64(i+1):
			return nil, foreign(fmt.Sprintf("table %sschema names application %q, version %d", s.settings.prefix, m.name, m.version))
		case i >= len(all):
			return nil, fmt.Errorf("the schema has version %d, newer than the %d of this program; use a newer program",
				applied[len(applied)-1].version, len(all))
		case m.checksum != "" && m.checksum != all[i].checksum:
			return nil, fmt.Errorf("the schema was made by another %s (checksum %s, here %s)", all[i].name, m.checksum, all[i].checksum)
		}
	}
	return all[len(applied):], nil
}

// present returns those of the names that are taken, in the same order. It
// asks once: what another process creates meanwhile is seen whole or not at all.
func (s *Store) present(ctx context.Context, on runner, names []string) (there []string, err error) {
	query := `SELECT name FROM sqlite_master`
	if s.dialect == postgresql {
		// Not to_regclass: it would believe a cache from before the lock was held.
		query = `SELECT c.relname::text FROM pg_catalog.pg_class c WHERE pg_catalog.pg_table_is_visible(c.oid)`
	}
	taken := map[string]bool{}
	err = each(ctx, on, func(r *row) error {
		taken[r.text()] = true
		return nil
	}, query)
	for _, name := range names {
		if name = s.settings.prefix + name; taken[name] {
			there = append(there, name)
		}
	}
	return there, err
}

// apply runs what is missing, in the transaction of on, which holds a lock
// against other processes that do the same.
func (s *Store) apply(ctx context.Context, on runner) error {
	missing, err := s.pending(ctx, on)
	if err != nil {
		return err
	}
	for _, m := range missing {
		for _, statement := range m.statements(s.settings.prefix) {
			if _, err := on.exec(ctx, statement); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		if _, err := on.exec(ctx, `UPDATE {schema} SET checksum = $1 WHERE version = $2`, m.checksum, m.version); err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	return nil
}

// open checks first, so that what is not ours is not touched.
func (s *Store) open(ctx context.Context) error {
	check := s.checkPostgreSQL
	if s.dialect == sqlite {
		check = s.checkSQLite
	}
	if err := check(ctx); err != nil {
		return err
	}
	var missing []migration
	err := s.engine.view(ctx, func(on runner) (err error) {
		missing, err = s.pending(ctx, on)
		return err
	})
	if err != nil {
		return err
	}
	if len(missing) > 0 && !s.migrate {
		return fmt.Errorf("the schema lacks migration %s and migrating is switched off", missing[0].name)
	}
	if s.dialect == sqlite {
		if err := s.writeAhead(ctx); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		long := context.WithValue(ctx, patience{}, true)
		err = s.unhurried(long, func() error {
			return s.engine.tx(long, func(on runner) error { return s.migrateIn(long, on) })
		})
	}
	if err != nil || s.moving {
		return err
	}
	return s.engine.view(ctx, func(on runner) error {
		_, err := s.now(ctx, on) // not where a move left it, or has yet to fill it
		if err == nil {
			err = s.refuseElsewhere(ctx, on)
		}
		return err
	})
}

const (
	// migrationLock is how long a migration stands in the way of everybody
	// else: who asks for a table after it waits until it has it, and it waits
	// for the longest transaction there is.
	migrationLock = 2 * time.Second
	// migrationPause lets them through before it is tried again.
	migrationPause = time.Second
)

// unhurried tries again while PostgreSQL does not give a lock in time.
func (s *Store) unhurried(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		if s.dialect != postgresql || sqlState(err) != lockNotAvailable {
			return err
		}
		pause := time.NewTimer(migrationPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("a transaction of somebody else holds the tables: %w", err)
		case <-pause.C:
		}
	}
}

const lockNotAvailable = "55P03"

// migrateIn migrates in a transaction, after who does so elsewhere.
func (s *Store) migrateIn(ctx context.Context, on runner) error {
	if s.dialect == postgresql {
		err := each(ctx, on, func(*row) error { return nil }, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, s.settings.prefix+"schema")
		if err != nil {
			return err
		}
		if _, err := on.exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d`, migrationLock.Milliseconds())); err != nil {
			return err
		}
	}
	return s.apply(ctx, on)
}

func (s *Store) checkPostgreSQL(ctx context.Context) error {
	const oldest = 12
	return s.engine.view(ctx, func(on runner) error {
		var version int64
		var standby bool
		var commit string
		_, err := one(ctx, on, func(r *row) { version, standby, commit = r.int(), r.bool(), r.text() },
			`SELECT current_setting('server_version_num')::bigint, pg_is_in_recovery(), current_setting('synchronous_commit')`)
		switch {
		case err != nil:
			return err
		case version < oldest*10000:
			return fmt.Errorf("PostgreSQL %d is too old: want %d or later", version/10000, oldest)
		case standby:
			return errors.New("this is a standby: sessions are read from the primary")
		case commit == "off" && !s.relaxed:
			return errors.New("synchronous_commit is off: a crash could undo a revocation; switch it on for this role, or see RelaxedDurability")
		}
		return nil
	})
}

func (s *Store) checkSQLite(ctx context.Context) error {
	if s.db.Stats().MaxOpenConnections == 1 {
		return errors.New("the pool is limited to one connection, which is held for writing: allow two or more")
	}
	return s.engine.view(ctx, func(on runner) error {
		var synchronous int64
		if _, err := one(ctx, on, func(r *row) { synchronous = r.int() }, `PRAGMA synchronous`); err != nil {
			return err
		}
		if synchronous < 2 && !s.relaxed {
			return errors.New("PRAGMA synchronous is below FULL: a power failure could undo a revocation; see SQLiteDSN, or RelaxedDurability")
		}
		return nil
	})
}

// writeAhead puts the file into WAL mode, in which it stays.
func (s *Store) writeAhead(ctx context.Context) error {
	return untilFree(ctx, func() error {
		var mode string
		err := s.db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("the database cannot use WAL mode (journal_mode is %s): it must be a file on a local disk", mode)
		}
		return err
	})
}
