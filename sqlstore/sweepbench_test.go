package sqlstore_test

import (
	"cmp"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/sqlstore"
)

var benchExpired, _ = strconv.Atoi(cmp.Or(os.Getenv("COUNTERFOIL_BENCH_EXPIRED"), "10000"))

// BenchmarkSweepBeside measures sign-ins while nobody sweeps, while one
// process and while three sweep expired sessions on PostgreSQL.
func BenchmarkSweepBeside(b *testing.B) {
	for _, nodes := range []int{0, 1, 3} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			db := postgresDB(b, nil)
			db.SetMaxIdleConns(benchClients)
			store := opened(b, sqlstore.PostgreSQL(db))
			expired(b, db)
			sweepBeside(b, db, store, nodes)
		})
	}
}

// expired fills the table with sessions that are long over, four a subject.
func expired(b *testing.B, db *sql.DB) {
	b.Helper()
	for _, statement := range []string{
		`INSERT INTO counterfoil_subjects (epoch, id) SELECT 1, 'gone-' || n FROM generate_series(1, ` + strconv.Itoa(max(1, benchExpired/4)) + `) n`,
		`INSERT INTO counterfoil_sessions (subject_no, created_at, last_active_at, idle_ms, expires_at, epoch0, sid, secret_hash, client_id, amr, user_agent, ip)
			SELECT 1 + n / 4, n, n, 600000, 1000000 + n, 1, md5(n::text), decode(md5(n::text) || md5('s' || n), 'hex'), 'default', '["pwd"]',
				'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36', '203.0.113.77'
			FROM generate_series(1, ` + strconv.Itoa(benchExpired) + `) n`,
		`VACUUM ANALYZE counterfoil_sessions`, `CHECKPOINT`,
	} {
		if _, err := db.Exec(statement); err != nil {
			b.Fatal(err)
		}
	}
}

// sweepBeside signs in from eight clients until the sweep is done, or for a
// few seconds where there is none.
func sweepBeside(b *testing.B, db *sql.DB, store *sqlstore.Store, nodes int) {
	var sweeping, clients sync.WaitGroup
	var swept atomic.Int64
	stop := make(chan struct{})
	began := time.Now()
	for range nodes {
		sweeping.Go(func() {
			for {
				n, err := store.Sessions().Purge(b.Context(), time.Now(), 200)
				if swept.Add(int64(n)); err != nil {
					b.Error(err)
				}
				if err != nil || swept.Load() >= int64(benchExpired) || n == 0 && nodes == 1 {
					return
				}
			}
		})
	}
	took := make([][]time.Duration, 8)
	for i := range took {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := time.Now()
				if _, err := store.Sessions().Insert(b.Context(), session(fmt.Sprint("bench-", i, "-", len(took[i])%1000))); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	if nodes == 0 {
		time.Sleep(5 * time.Second)
	}
	sweeping.Wait()
	sweep := time.Since(began)
	close(stop)
	clients.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/time.Since(began).Seconds(), "sign-ins/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(swept.Load())/sweep.Seconds(), "swept/s")
	var table, index int64
	if err := db.QueryRow(`SELECT pg_relation_size('counterfoil_sessions'), pg_indexes_size('counterfoil_sessions')`).Scan(&table, &index); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(table)/1e6, "table-MB")
	b.ReportMetric(float64(index)/1e6, "indexes-MB")
	b.ReportMetric(0, "ns/op")
}
