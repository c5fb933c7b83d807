package redisstore_test

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
	"github.com/counterfoil/counterfoil/storetest"
)

func TestStore(t *testing.T) {
	server := redisServer(t, "appendfsync everysec")
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		do(t, server, "FLUSHALL")
		db := tempDB(t)
		s := stores(t, db, store(t, sqlstore.SQLite(db, sqlstore.Clock(clock)), server.URL, redisstore.Clock(clock)))
		s.Rounds = 10
		return s
	})
}

// The same on a cluster of three masters.
func TestStoreOnCluster(t *testing.T) {
	cluster := redisCluster(t)
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		for _, node := range cluster.Nodes[:3] {
			do(t, node, "FLUSHALL")
		}
		db := tempDB(t)
		s := stores(t, db, store(t, sqlstore.SQLite(db, sqlstore.Clock(clock)), cluster.URL, redisstore.Clock(clock)))
		s.Rounds = 3
		return s
	})
}

func TestStoreBesidePostgreSQL(t *testing.T) {
	server := redisServer(t, "appendfsync everysec")
	db := postgresDB(t)
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
		do(t, server, "FLUSHALL")
		wipe(t, db)
		s := stores(t, db, store(t, sqlstore.PostgreSQL(db, sqlstore.Clock(clock)), server.URL, redisstore.Clock(clock)))
		s.Rounds = 6
		return s
	})
}
