package redisstore_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// loaded is a store with sessions of users who have four each.
func loaded(b *testing.B, count int) (s *redisstore.Store, ids []string) {
	b.Helper()
	server := redisServer(b, "appendfsync everysec")
	s = store(b, sqlstore.SQLite(tempDB(b)), server.URL)
	now := time.Now().UTC()
	ids = make([]string, count)
	var next atomic.Int64
	var done sync.WaitGroup
	for range 64 {
		done.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				subject := fmt.Sprintf("user-%d-of-many", i/4)
				one := counterfoil.Session{
					ID: opaque.NewSelector(subject), Subject: subject, ClientID: "default", CreatedAt: now, LastActiveAt: now,
					IdleTimeout: 7 * 24 * time.Hour, ExpiresAt: now.Add(30 * 24 * time.Hour), AuthTime: now, Methods: []string{"pwd"},
					Device: counterfoil.Device{UserAgent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36", IP: "192.0.2.200"},
				}
				if _, err := s.Sessions().Insert(b.Context(), one); err != nil {
					b.Error(err)
					return
				}
				ids[i] = one.ID
			}
		})
	}
	empty := do(b, server, "DBSIZE")
	done.Wait()
	used, err := server.Info(b.Context(), "used_memory")
	if err != nil {
		b.Fatal(err)
	}
	var bytes float64
	if _, err := fmt.Sscan(used, &bytes); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d sessions: %.0f bytes each (%s keys before)", count, bytes/float64(count), empty)
	return s, ids
}

// BenchmarkSnapshot reads sessions as refreshes do, from 64 callers.
func BenchmarkSnapshot(b *testing.B) {
	s, ids := loaded(b, 20_000)
	b.SetParallelism(32)
	var next atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := ids[int(next.Add(7919))%len(ids)]
			if _, err := s.Sessions().Snapshot(b.Context(), id); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "snapshots/s")
}
