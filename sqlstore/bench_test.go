package sqlstore_test

import (
	"cmp"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// Settings of the benchmarks. A virtual disk often does not really flush; on
// SQLite COUNTERFOIL_BENCH_SYNC=1ms adds that to each commit, where it waits
// as a slower disk would make it wait. (For PostgreSQL set commit_delay or use
// such a disk.)
var (
	benchSessions, _ = strconv.Atoi(cmp.Or(os.Getenv("COUNTERFOIL_BENCH_SESSIONS"), "10000"))
	benchSync, _     = time.ParseDuration(cmp.Or(os.Getenv("COUNTERFOIL_BENCH_SYNC"), "0s"))
)

const benchClients = 16

func BenchmarkStore(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "bench.db")
		count := observe(b, path)
		db := sqliteDB(b, path)
		db.SetMaxIdleConns(benchClients)
		store := opened(b, sqlstore.SQLite(db))
		load(b, store)
		size(b, db, `PRAGMA wal_checkpoint(TRUNCATE)`, `SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%session%'`)
		count.delay.Store(int64(benchSync))
		benchmark(b, store)
		sweep(b, store)
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		db := postgresDB(b, nil)
		db.SetMaxIdleConns(benchClients)
		store := opened(b, sqlstore.PostgreSQL(db))
		load(b, store)
		size(b, db, `VACUUM ANALYZE`, `SELECT pg_total_relation_size('counterfoil_sessions')`)
		benchmark(b, store)
		sweep(b, store)
	})
}

// load fills the store: four sessions a subject.
func load(b *testing.B, store *sqlstore.Store) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range benchClients {
		wait.Go(func() {
			for i := next.Add(1); i <= int64(benchSessions); i = next.Add(1) {
				if _, err := store.Sessions().Insert(b.Context(), session(subjectOf(i))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func subjectOf(i int64) string { return fmt.Sprintf("subject %08d", i%int64(max(benchSessions/4, 1))) }

func size(b *testing.B, db *sql.DB, prepare, query string) {
	if _, err := db.Exec(prepare); err != nil {
		b.Fatal(err)
	}
	var bytes int64
	if err := db.QueryRow(query).Scan(&bytes); err != nil {
		b.Logf("size: %v", err)
		return
	}
	b.Logf("%d sessions, %d bytes each with indexes", benchSessions, bytes/int64(benchSessions))
}

func benchmark(b *testing.B, store *sqlstore.Store) {
	sessions := store.Sessions()
	ids := make([]string, 0, 1000)
	for i := range cap(ids) {
		ids = append(ids, insert(b, sessions, session(subjectOf(int64(i)))).Session.ID)
	}
	b.Run("Snapshot", func(b *testing.B) {
		clients(b, nil, func(i int64) error {
			_, err := sessions.Snapshot(b.Context(), ids[i%int64(len(ids))])
			return err
		})
	})
	b.Run("Insert", func(b *testing.B) {
		clients(b, nil, func(i int64) error {
			_, err := sessions.Insert(b.Context(), session(subjectOf(i)))
			return err
		})
	})
	b.Run("Touch100", func(b *testing.B) {
		var at atomic.Int64
		at.Store(time.Now().UnixMilli())
		clients(b, nil, func(i int64) error {
			batch := make([]counterfoil.Touch, 100)
			now := time.UnixMilli(at.Add(1))
			for j := range batch {
				batch[j] = counterfoil.Touch{ID: ids[(int(i)*100+j)%len(ids)], At: now}
			}
			return sessions.Touch(b.Context(), batch)
		})
	})
	b.Run("End", func(b *testing.B) {
		var ready []string
		clients(b, func() {
			ready = ready[:0]
			for range b.N {
				ready = append(ready, session("").ID)
			}
			parallel(b, func(i int64) error {
				add := session(subjectOf(i))
				add.ID = ready[i]
				_, err := sessions.Insert(b.Context(), add)
				return err
			})
		}, func(i int64) error {
			_, err := sessions.End(b.Context(), endRequest(ready[i]))
			return err
		})
	})
	b.Run("Advance", func(b *testing.B) {
		clients(b, nil, func(i int64) error {
			_, err := sessions.Advance(b.Context(), signOut(subjectOf(i)))
			return err
		})
	})
}

// sweep measures sign-ins while expired sessions are deleted.
func sweep(b *testing.B, store *sqlstore.Store) {
	sessions := store.Sessions()
	b.Run("InsertDuringSweep", func(b *testing.B) {
		var swept atomic.Int64
		stop := make(chan struct{})
		var done sync.WaitGroup
		clients(b, func() {
			parallelN(b, 20*b.N, func(i int64) error {
				old := session(subjectOf(i))
				old.ExpiresAt = old.CreatedAt.Add(-time.Hour)
				_, err := sessions.Insert(b.Context(), old)
				return err
			})
			done.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					n, err := sessions.Purge(b.Context(), time.Now(), 1000)
					if err != nil {
						b.Error(err)
					}
					if swept.Add(int64(n)); n == 0 {
						return
					}
				}
			})
		}, func(i int64) error {
			_, err := sessions.Insert(b.Context(), session(subjectOf(i)))
			return err
		})
		close(stop)
		done.Wait()
		b.ReportMetric(float64(swept.Load())/b.Elapsed().Seconds(), "swept/s")
	})
}

// clients runs b.N calls from 16 goroutines and tells how long they waited.
func clients(b *testing.B, prepare func(), call func(i int64) error) {
	if prepare != nil {
		prepare()
	}
	took := make([]time.Duration, b.N)
	runtime.GC()
	b.ResetTimer()
	parallel(b, func(i int64) error {
		start := time.Now()
		err := call(i)
		took[i] = time.Since(start)
		return err
	})
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

func parallel(b *testing.B, call func(i int64) error) { parallelN(b, b.N, call) }

func parallelN(b *testing.B, n int, call func(i int64) error) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range benchClients {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}
