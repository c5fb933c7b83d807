package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		db := sqliteDB(t, filepath.Join(t.TempDir(), "test.db"))
		return stores(t, db, sqlstore.SQLite(db, sqlstore.Clock(clock)))
	})
}

func TestPostgreSQL(t *testing.T) {
	url := postgresURL(t)
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		db := postgresDB(t, url)
		return stores(t, db, sqlstore.PostgreSQL(db, sqlstore.Clock(clock)))
	})
}

func stores(t *testing.T, db *sql.DB, s *sqlstore.Store) storetest.Stores {
	opened(t, s)
	return storetest.Stores{Store: s, Users: s.Users(), BeginTx: func(ctx context.Context) (*sql.Tx, error) { return db.BeginTx(ctx, nil) }}
}

func opened(t testing.TB, s *sqlstore.Store) *sqlstore.Store {
	t.Helper()
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func sqliteDB(t testing.TB, path string) *sql.DB {
	return openDB(t, "sqlite", sqlstore.SQLiteDSN(path))
}

func openDB(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// postgresURL names a server to test on, or ends the test.
func postgresURL(t testing.TB) string {
	t.Helper()
	const name = "COUNTERFOIL_TEST_POSTGRES"
	url := os.Getenv(name)
	if url == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("needs PostgreSQL: run make test, or set %s", name)
	}
	return url
}

// postgresDB makes a schema of its own that the connections of the pool use.
func postgresDB(t testing.TB, server string) *sql.DB {
	t.Helper()
	schema := fmt.Sprintf("test_%016x", rand.Uint64())
	admin := openDB(t, "pgx", server)
	if _, err := admin.Exec(`CREATE SCHEMA ` + schema); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec(`DROP SCHEMA ` + schema + ` CASCADE`); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return openDB(t, "pgx", u.String())
}
