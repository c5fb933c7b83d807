package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// hold takes SQLite's write lock from another connection pool, as another
// process would, until the returned function is called.
func hold(t *testing.T, path string) (letGo func()) {
	t.Helper()
	conn, err := sqliteDB(t, path).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(context.Background(), `COMMIT`); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
}

func TestGroupCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "group.db")
	count := observe(t, path)
	store := opened(t, sqlstore.SQLite(sqliteDB(t, path)))
	sessions := store.Sessions()
	taken := insert(t, sessions, session("ann")).Session

	letGo := hold(t, path)
	before := count.n.Load()
	const n = 100
	errs := make([]error, n)
	var done, sent sync.WaitGroup
	for i := range n {
		sent.Add(1)
		done.Go(func() {
			add := session("ann")
			if i%10 == 0 {
				add.ID = taken.ID // cannot be added twice
			}
			sent.Done()
			_, errs[i] = sessions.Insert(t.Context(), add)
		})
	}
	sent.Wait()
	letGo()
	done.Wait()
	if got := count.n.Load() - before; got > n/4 {
		t.Errorf("%d operations took %d commits: they were not grouped", n, got)
	}
	for i, err := range errs {
		if failed := i%10 == 0; failed != (err != nil) {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	list, _, err := sessions.List(t.Context(), counterfoil.ListQuery{Subject: "ann", Limit: 1000})
	if err != nil || len(list) != 1+n-n/10 {
		t.Errorf("%d sessions are there, %v", len(list), err)
	}
}

func TestGivingUpBeforeItBegan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "busy.db")
	store := opened(t, sqlstore.SQLite(sqliteDB(t, path)))
	sessions := store.Sessions()
	letGo := hold(t, path)
	gaveUp := errors.New("the user left")
	ctx, cancel := context.WithCancelCause(t.Context())
	add := session("ann")
	failed := make(chan error)
	go func() {
		_, err := sessions.Insert(ctx, add)
		failed <- err
	}()
	cancel(gaveUp)
	if err := <-failed; !errors.Is(err, gaveUp) {
		t.Errorf("got %v, want the caller's cause", err)
	}
	letGo()
	insert(t, sessions, session("ben")) // after whatever had waited
	if _, err := sessions.Snapshot(t.Context(), add.ID); !errors.Is(err, counterfoil.ErrNotFound) {
		t.Errorf("the call that had failed was carried out: %v", err)
	}
}

func TestBesideAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "beside.db")
	var stores []*sqlstore.Store
	for range 3 {
		stores = append(stores, opened(t, sqlstore.SQLite(sqliteDB(t, path))))
	}
	var wait sync.WaitGroup
	for i, s := range stores {
		for j := range 8 {
			wait.Go(func() {
				for k := range 10 {
					sessions := s.Sessions()
					subject := fmt.Sprintf("subject %d", (j+k)%5)
					snap, err := sessions.Insert(t.Context(), session(subject))
					if err != nil {
						t.Errorf("store %d: Insert: %v", i, err)
						return
					}
					if _, err := stores[(i+1)%3].Sessions().End(t.Context(), endRequest(snap.Session.ID)); err != nil {
						t.Errorf("store %d: End elsewhere: %v", i, err)
					}
					if got := status(t, sessions, snap.Session.ID); got != counterfoil.StatusRevoked {
						t.Errorf("store %d: ended elsewhere, and here it is %s", i, got)
					}
				}
			})
		}
	}
	wait.Wait()
	head, err := stores[0].Feed().Head(t.Context())
	if err != nil || head.Position != 3*8*10 {
		t.Errorf("the feed stands at %d, want 240; %v", head.Position, err)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "close.db")
	db := sqliteDB(t, path)
	store := sqlstore.SQLite(db)
	if err := store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	letGo := hold(t, path)
	sessions := store.Sessions()
	result := make(chan error, 20)
	var sent sync.WaitGroup
	for range cap(result) {
		sent.Add(1)
		go func() {
			sent.Done()
			_, err := sessions.Insert(context.Background(), session("ann"))
			result <- err
		}()
	}
	sent.Wait()
	letGo()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	answered := 0
	for range cap(result) {
		if err := <-result; err == nil {
			answered++
		} else if !errors.Is(err, counterfoil.ErrStoreUnavailable) {
			t.Errorf("a call beside Close: %v", err)
		}
	}
	if err := store.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	_, err := sessions.Insert(t.Context(), session("ann"))
	if !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		t.Errorf("Insert after Close: %v", err)
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM counterfoil_sessions`).Scan(&n); err != nil || n != answered {
		t.Errorf("%d were acknowledged, %d are there; %v", answered, n, err)
	}
}

func TestPanicStaysWithItsCaller(t *testing.T) {
	store := opened(t, sqlstore.SQLite(sqliteDB(t, filepath.Join(t.TempDir(), "panic.db"))))
	func() {
		defer func() {
			if got := recover(); got != "mine" {
				t.Errorf("recovered %v, want the caller's", got)
			}
		}()
		_ = store.Users().Throttle(t.Context(), []string{"k"}, func([]directory.Counter) error { panic("mine") })
	}()
	insert(t, store.Sessions(), session("ann"))
}

func TestSQLiteConnectionsRefused(t *testing.T) {
	for _, c := range []struct {
		name, dsn string
		options   []sqlstore.Option
		limit     int
		want      string
	}{
		{name: "memory", dsn: ":memory:", want: "WAL"},
		{name: "one connection", dsn: "$", limit: 1, want: "two or more"},
		{name: "synchronous", dsn: "$?_pragma=synchronous(NORMAL)", want: "below FULL"},
		{name: "synchronous, relaxed", dsn: "$?_pragma=synchronous(NORMAL)", options: []sqlstore.Option{sqlstore.RelaxedDurability()}},
		{name: "plain", dsn: "$"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "test.db")
			db := openDB(t, "sqlite", strings.Replace(c.dsn, "$", path, 1))
			db.SetMaxOpenConns(c.limit)
			store := sqlstore.SQLite(db, c.options...)
			defer store.Close()
			err := store.Open(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSQLiteDSNTakesAnyName(t *testing.T) {
	for _, name := range []string{"plain.db", "with space.db", "what?.db", "a#b.db", "100%.db", "a%20b.db", "a&b=c.db", "ünïcode.db", ":memory:"} {
		path := filepath.Join(t.TempDir(), name)
		opened(t, sqlstore.SQLite(sqliteDB(t, path)))
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	t.Chdir(t.TempDir())
	opened(t, sqlstore.SQLite(sqliteDB(t, "relative?.db")))
	if _, err := os.Stat("relative?.db"); err != nil {
		t.Error(err)
	}
}

func TestUnavailable(t *testing.T) {
	check := func(t *testing.T, store *sqlstore.Store, db *sql.DB) {
		defer store.Close()
		sessions := store.Sessions()
		db.Close()
		_, endErr := sessions.End(t.Context(), endRequest(session("ann").ID))
		if strings.Contains(t.Name(), "SQLite") {
			endErr = counterfoil.ErrStoreUnavailable // the writer's connection outlives the pool
		}
		_, readErr := sessions.Snapshot(t.Context(), session("ann").ID)
		_, nowErr := store.Now(t.Context())
		for _, err := range []error{endErr, readErr, nowErr, store.Open(t.Context())} {
			if !errors.Is(err, counterfoil.ErrStoreUnavailable) {
				t.Errorf("got %v, want %v", err, counterfoil.ErrStoreUnavailable)
			}
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		db := sqliteDB(t, filepath.Join(t.TempDir(), "gone.db"))
		check(t, opened(t, sqlstore.SQLite(db)), db)
	})
	t.Run("SQLite, no such folder", func(t *testing.T) {
		err := sqlstore.SQLite(sqliteDB(t, filepath.Join(t.TempDir(), "no", "test.db"))).Open(t.Context())
		if !errors.Is(err, counterfoil.ErrStoreUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("PostgreSQL, nobody there", func(t *testing.T) {
		err := sqlstore.PostgreSQL(openDB(t, "pgx", "postgres://nobody@127.0.0.1:1/none")).Open(t.Context())
		if !errors.Is(err, counterfoil.ErrStoreUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		db := postgresDB(t, nil)
		check(t, opened(t, sqlstore.PostgreSQL(db)), db)
	})
}

// A tail without a connection of its own waits for one like everybody. The
// writer does not wait for the tail meanwhile.
func TestSQLiteWritesWhileTheTailWaitsForThePool(t *testing.T) {
	db := sqliteDB(t, filepath.Join(t.TempDir(), "small.db"))
	db.SetMaxOpenConns(2)
	store := opened(t, sqlstore.SQLite(db))
	insert(t, store.Sessions(), session("ann")) // the writer has its connection
	tail, err := store.Feed().Tail(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiting := db.Stats().WaitCount
	done := make(chan error, 1)
	go func() {
		_, err := tail.Next(t.Context())
		done <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); db.Stats().WaitCount == waiting; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the tail did not ask the pool")
		}
	}
	insert(t, store.Sessions(), session("ben"))
	select {
	case err := <-done:
		t.Fatalf("the write waited until the tail gave up: %v", err)
	default:
	}
	if err := errors.Join(busy.Close(), <-done, tail.Close()); err != nil {
		t.Error(err)
	}
}
