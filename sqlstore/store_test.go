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
	db := postgresDB(t, nil)
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		wipe(t, db)
		return stores(t, db, sqlstore.PostgreSQL(db, sqlstore.Clock(clock)))
	})
}

// At stricter levels PostgreSQL undoes what would race, and the store repeats it.
func TestPostgreSQLSerializable(t *testing.T) {
	db := postgresDB(t, url.Values{"default_transaction_isolation": {"serializable"}})
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		wipe(t, db)
		s := stores(t, db, sqlstore.PostgreSQL(db, sqlstore.Clock(clock)))
		s.Rounds = 5
		return s
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
func postgresDB(t testing.TB, settings url.Values) *sql.DB {
	t.Helper()
	server := postgresURL(t)
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
	return schemaDB(t, schema, settings)
}

// schemaDB is another pool in a schema that postgresDB made.
func schemaDB(t testing.TB, schema string, settings url.Values) *sql.DB {
	t.Helper()
	u, err := url.Parse(postgresURL(t))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	for name, values := range settings {
		q[name] = values
	}
	u.RawQuery = q.Encode()
	return openDB(t, "pgx", u.String())
}

// wipe makes an existing schema as good as new, which is quicker than a new one.
func wipe(t *testing.T, db *sql.DB) {
	t.Helper()
	var exists bool
	if err := db.QueryRow(`SELECT to_regclass('counterfoil_schema') IS NOT NULL`).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	if !exists {
		return
	}
	for _, table := range []string{"sessions", "subjects", "feed", "keys", "api_keys", "users", "throttle"} {
		if _, err := db.Exec(`DELETE FROM counterfoil_` + table); err != nil {
			t.Fatal(err)
		}
	}
	_, err := db.Exec(`WITH reset AS (SELECT setval('counterfoil_feed_position', 1, false)) UPDATE counterfoil_meta SET key_version = 0, retain_ms = 0 FROM reset`)
	if err != nil {
		t.Fatal(err)
	}
}
