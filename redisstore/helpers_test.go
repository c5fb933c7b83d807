package redisstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/counterfoil/counterfoil/internal/testenv"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/storetest"
)

// redisBin names redis-server, or ends the test.
func redisBin(t testing.TB) string {
	t.Helper()
	bin := os.Getenv(testenv.RedisBin)
	if bin == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", testenv.RedisBin)
		}
		t.Skipf("needs Redis: run make test, or set %s", testenv.RedisBin)
	}
	return bin
}

// redisServer is a server of the test's own.
func redisServer(t testing.TB, options ...string) *testenv.Redis {
	t.Helper()
	r, err := testenv.StartRedis(t.Context(), redisBin(t), "", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// redisCluster is a cluster of the test's own: three masters, three replicas.
func redisCluster(t testing.TB) *testenv.RedisCluster {
	t.Helper()
	cluster, err := testenv.StartRedisCluster(t.Context(), redisBin(t), "", "appendfsync everysec")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func do(t testing.TB, r *testenv.Redis, command ...string) string {
	t.Helper()
	answer, err := r.Do(t.Context(), command...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func sqliteDB(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func tempDB(t testing.TB) *sql.DB { return sqliteDB(t, filepath.Join(t.TempDir(), "test.db")) }

// store opens a store on a database and the servers of a URL.
func store(t testing.TB, db *sqlstore.Store, url string, options ...redisstore.Option) *redisstore.Store {
	t.Helper()
	option, err := redisstore.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	s := redisstore.New(db, option, append([]redisstore.Option{redisstore.Logger(slog.New(slog.DiscardHandler))}, options...)...)
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

func stores(t *testing.T, db *sql.DB, s *redisstore.Store) storetest.Stores {
	return storetest.Stores{Store: s, Users: s.Users(), Elsewhere: true,
		BeginTx: func(ctx context.Context) (*sql.Tx, error) { return db.BeginTx(ctx, nil) }}
}

// until waits for something that becomes true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // nothing tells when it becomes true
	}
}

// postgresDB makes a schema of its own that the connections of the pool use.
func postgresDB(t testing.TB) *sql.DB {
	t.Helper()
	const name = "COUNTERFOIL_TEST_POSTGRES"
	server := os.Getenv(name)
	if server == "" {
		if os.Getenv("COUNTERFOIL_TEST_ALL") == "1" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("needs PostgreSQL: run make test, or set %s", name)
	}
	open := func(source string) *sql.DB {
		db, err := sql.Open("pgx", source)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	schema := fmt.Sprintf("test_%016x", rand.Uint64())
	admin := open(server)
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
	db := open(u.String())
	db.SetMaxOpenConns(16)
	return db
}

// wipe makes a schema as good as new.
func wipe(t testing.TB, db *sql.DB) {
	t.Helper()
	var exists bool
	if err := db.QueryRow(`SELECT to_regclass('counterfoil_schema') IS NOT NULL`).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	if !exists {
		return
	}
	for _, statement := range []string{
		`TRUNCATE counterfoil_sessions, counterfoil_subjects, counterfoil_feed, counterfoil_keys, counterfoil_api_keys, counterfoil_users,
			counterfoil_throttle, counterfoil_journal`,
		`SELECT setval('counterfoil_feed_position', 1, false)`,
		`UPDATE counterfoil_meta SET key_version = 0, sessions_in = NULL, journal_from = 0, retain_ms = 0`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
}
