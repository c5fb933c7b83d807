package engine

import (
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// connections bounds a node's pool: many packages share the server.
const connections = 6

func openDB(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// closing closes a store with its test, after the nodes on it.
func closing(t testing.TB, s *sqlstore.Store) *sqlstore.Store {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openSQLite(t testing.TB, clock func() time.Time) func(testing.TB) Store {
	path := filepath.Join(t.TempDir(), "counterfoil.db")
	return func(t testing.TB) Store {
		t.Helper()
		return closing(t, sqlstore.SQLite(openDB(t, "sqlite", sqlstore.SQLiteDSN(path)), sqlstore.Clock(clock)))
	}
}

func openRedis(t testing.TB, clock func() time.Time) func(testing.TB) Store {
	t.Helper()
	option, err := redisstore.ParseURL(serverURL(t, "COUNTERFOIL_TEST_REDIS_URL"))
	if err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("suite-%016x:", rand.Uint64())
	path := filepath.Join(t.TempDir(), "counterfoil.db")
	return func(t testing.TB) Store {
		t.Helper()
		db := sqlstore.SQLite(openDB(t, "sqlite", sqlstore.SQLiteDSN(path)), sqlstore.Clock(clock))
		store := redisstore.New(db, option, redisstore.Clock(clock), redisstore.KeyPrefix(prefix), redisstore.Logger(slog.New(slog.DiscardHandler)))
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		return store
	}
}

// schemas are those of this process that no test uses now. Emptying one is
// much quicker than making one.
var schemas struct {
	sync.Mutex
	free []string
}

func openPostgreSQL(t testing.TB, clock func() time.Time) func(testing.TB) Store {
	t.Helper()
	server := serverURL(t, "COUNTERFOIL_TEST_POSTGRES")
	name := schema(t, server)
	return func(t testing.TB) Store {
		t.Helper()
		db := openDB(t, "pgx", within(t, server, name))
		db.SetMaxOpenConns(connections)
		return closing(t, sqlstore.PostgreSQL(db, sqlstore.Clock(clock)))
	}
}

// serverURL is what a variable names, or the end of the test.
func serverURL(t testing.TB, name string) string {
	t.Helper()
	server := os.Getenv(name)
	if server == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("%s is not set: run make test", name)
	}
	return server
}

// within is the address of a server whose connections find the schema first.
func within(t testing.TB, server, schema string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

// schema is one without rows that this test has for itself. Those of the
// process end with the server of the tests.
func schema(t testing.TB, server string) string {
	t.Helper()
	schemas.Lock()
	var name string
	if n := len(schemas.free); n > 0 {
		name, schemas.free = schemas.free[n-1], schemas.free[:n-1]
	}
	schemas.Unlock()
	if name == "" {
		name = newSchema(t, server)
	}
	t.Cleanup(func() {
		if empty(t, within(t, server, name)) {
			schemas.Lock()
			defer schemas.Unlock()
			schemas.free = append(schemas.free, name)
		}
	})
	return name
}

// newSchema makes one, and notes in it how the rows are that a new one has.
func newSchema(t testing.TB, server string) string {
	t.Helper()
	name := fmt.Sprintf("suite_%016x", rand.Uint64())
	db, err := sql.Open("pgx", within(t, server, name))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, db)
	if _, err := db.Exec(`CREATE SCHEMA ` + name); err != nil {
		t.Fatal(err)
	}
	store := sqlstore.PostgreSQL(db)
	if err := store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE new_meta AS SELECT * FROM counterfoil_meta`); err != nil {
		t.Fatal(err)
	}
	return name
}

func closed(t testing.TB, db *sql.DB) {
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// empty makes a schema as good as new.
func empty(t testing.TB, dsn string) bool {
	db, err := sql.Open("pgx", dsn)
	if err == nil {
		defer closed(t, db)
		_, err = db.Exec(`DO $$ DECLARE name text; BEGIN
			FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'counterfoil%'
				AND tablename <> 'counterfoil_schema' LOOP
				EXECUTE format('DELETE FROM %I', name);
			END LOOP;
			INSERT INTO counterfoil_meta SELECT * FROM new_meta;
			PERFORM setval('counterfoil_feed_position', 1, false);
		END $$`)
	}
	if err != nil {
		t.Error("empty the schema:", err)
	}
	return err == nil
}
