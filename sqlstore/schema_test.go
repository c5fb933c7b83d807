package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// dialect is what the schema tests need of each.
type dialect struct {
	// fresh returns pools on one new database.
	fresh func(t *testing.T) func() *sql.DB
	store func(*sql.DB, ...sqlstore.Option) *sqlstore.Store
	files fs.FS
	dump  string // says whether anything in the database changed
}

func dialects(t *testing.T, run func(t *testing.T, d dialect)) {
	t.Run("SQLite", func(t *testing.T) {
		run(t, dialect{store: sqlstore.SQLite, files: sqlstore.SQLiteMigrations(), fresh: func(t *testing.T) func() *sql.DB {
			path := filepath.Join(t.TempDir(), "test.db")
			return func() *sql.DB { return sqliteDB(t, path) }
		}, dump: `SELECT coalesce(group_concat(name || coalesce(sql, ''), ';'), '') FROM sqlite_master`})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		run(t, dialect{store: sqlstore.PostgreSQL, files: sqlstore.PostgreSQLMigrations(), fresh: func(t *testing.T) func() *sql.DB {
			db := postgresDB(t, nil)
			return func() *sql.DB { return db }
		}, dump: `SELECT coalesce(string_agg(c.relname || ' ' || c.oid, ';' ORDER BY c.oid), '') FROM pg_class c WHERE relnamespace = current_schema()::regnamespace`})
	})
}

// execer is a *sql.DB or *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func mustExec(t *testing.T, on execer, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := on.ExecContext(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func text(t *testing.T, db *sql.DB, query string) (v string) {
	t.Helper()
	if err := db.QueryRow(query).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// manyVersions is a schema of long after this program.
var manyVersions = func() string {
	rows := make([]string, 99)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d, 'counterfoil', NULL)", i+1)
	}
	return "INSERT INTO counterfoil_schema VALUES " + strings.Join(rows, ", ")
}()

func TestForeignSchemaIsRefusedUntouched(t *testing.T) {
	ours := []string{
		`CREATE TABLE counterfoil_schema (version integer PRIMARY KEY, application text NOT NULL, checksum text)`,
	}
	cases := []struct {
		name       string
		statements []string
		want       string
	}{
		{"a table of the same name", []string{`CREATE TABLE counterfoil_users (id integer)`}, "not Counterfoil's"},
		{"another schema table", []string{`CREATE TABLE counterfoil_schema (number integer)`}, "not Counterfoil's"},
		{"an empty schema table", ours, "not Counterfoil's"},
		{"another application", append(ours, `INSERT INTO counterfoil_schema VALUES (1, 'goose', NULL)`), "not Counterfoil's"},
		{"a version missing", append(ours, `INSERT INTO counterfoil_schema VALUES (2, 'counterfoil', NULL)`), "not Counterfoil's"},
		{"another checksum", append(ours, `INSERT INTO counterfoil_schema VALUES (1, 'counterfoil', 'ffff')`), "checksum ffff"},
		{"a newer version", append(ours, manyVersions), "newer"},
	}
	dialects(t, func(t *testing.T, d dialect) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				db := d.fresh(t)()
				mustExec(t, db, c.statements...)
				before := text(t, db, d.dump)
				store := d.store(db)
				defer store.Close()
				err := store.Open(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if after := text(t, db, d.dump); after != before {
					t.Errorf("was %s\nand is %s", before, after)
				}
			})
		}
	})
}

// Not even WAL mode is switched on in a file that is not ours.
func TestForeignFileKeepsItsBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "foreign.db")
	db := sqliteDB(t, path)
	mustExec(t, db, `CREATE TABLE counterfoil_sessions (id integer)`)
	read := func() []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	before := read()
	for _, options := range [][]sqlstore.Option{nil, {sqlstore.WithoutMigrations(), sqlstore.TablePrefix("other_")}} {
		store := sqlstore.SQLite(db, options...)
		if err := store.Open(t.Context()); err == nil {
			t.Error("opened")
		}
		store.Close()
	}
	if !bytes.Equal(before, read()) {
		t.Error("the file was changed")
	}
	if err := os.WriteFile(path+"2", []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	store := sqlstore.SQLite(sqliteDB(t, path+"2"))
	if err := store.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "not a database") {
		t.Errorf("a file of text: %v", err)
	}
}

func TestMigrationsRunElsewhere(t *testing.T) {
	dialects(t, func(t *testing.T, d dialect) {
		db := d.fresh(t)()
		store := d.store(db, sqlstore.WithoutMigrations())
		defer store.Close()
		if err := store.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "0001_first.sql") {
			t.Fatalf("Open of an empty database: %v", err)
		}
		names, err := fs.Glob(d.files, "*.sql")
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			b, err := fs.ReadFile(d.files, name)
			if err != nil {
				t.Fatal(err)
			}
			mustExec(t, db, strings.Split(string(b), ";\n")...)
		}
		if err := store.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		insert(t, store.Sessions(), session("ann"))
	})
}

func TestManyOpenAtOnce(t *testing.T) {
	dialects(t, func(t *testing.T, d dialect) {
		pool := d.fresh(t)
		var wait sync.WaitGroup
		for range 8 {
			store := d.store(pool())
			t.Cleanup(func() { store.Close() })
			wait.Go(func() {
				if err := store.Open(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if n := text(t, pool(), `SELECT count(*) FROM counterfoil_meta`); n != "1" {
			t.Errorf("%s rows in meta", n)
		}
	})
}

func TestPrefixesDoNotMeet(t *testing.T) {
	dialects(t, func(t *testing.T, d dialect) {
		pool := d.fresh(t)
		a := opened(t, d.store(pool(), sqlstore.TablePrefix("a_")))
		b := opened(t, d.store(pool(), sqlstore.TablePrefix("b_")))
		add := session("ann")
		insert(t, a.Sessions(), add)
		insert(t, b.Sessions(), add)
		if _, err := a.Sessions().Advance(t.Context(), signOut("ann")); err != nil {
			t.Fatal(err)
		}
		if got := status(t, a.Sessions(), add.ID); got != "revoked" {
			t.Errorf("a: %s", got)
		}
		if got := status(t, b.Sessions(), add.ID); got != "active" {
			t.Errorf("b: %s", got)
		}
		head, err := b.Feed().Head(t.Context())
		if err != nil || head.Position != 0 {
			t.Errorf("b's feed: %v, %v", head, err)
		}
	})
}

func TestTablePrefixIsChecked(t *testing.T) {
	for _, prefix := range []string{"", "1a", "A_", "a-b", `a"; DROP TABLE x; --`, "ä", strings.Repeat("a", 31)} {
		err := sqlstore.SQLite(sqliteDB(t, filepath.Join(t.TempDir(), "t.db")), sqlstore.TablePrefix(prefix)).Open(t.Context())
		if err == nil || !strings.Contains(err.Error(), "TablePrefix") {
			t.Errorf("%q: %v", prefix, err)
		}
	}
	longest := strings.Repeat("a", 30)
	dialects(t, func(t *testing.T, d dialect) {
		opened(t, d.store(d.fresh(t)(), sqlstore.TablePrefix(longest)))
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("czE3NjM3NzAwMDAwMDAgYWJj")
	f.Add("")
	f.Add("not base64!")
	store := opened(f, sqlstore.SQLite(sqliteDB(f, filepath.Join(f.TempDir(), "fuzz.db"))))
	f.Fuzz(func(t *testing.T, after string) {
		checkCursor(t, store, after)
	})
}

// checkCursor wants a page or a refusal that names the field.
func checkCursor(t *testing.T, store *sqlstore.Store, after string) {
	_, _, err := store.Sessions().List(t.Context(), counterfoil.ListQuery{After: after, Limit: 1})
	_, _, usersErr := store.Users().List(t.Context(), after, 1)
	for _, err := range []error{err, usersErr} {
		if err != nil && (!errors.Is(err, counterfoil.ErrInvalidCursor) || !strings.Contains(err.Error(), "after")) {
			t.Errorf("%q: %v", after, err)
		}
	}
	if after != "" && err == nil && usersErr == nil {
		t.Errorf("%q is taken by both lists", after)
	}
}
