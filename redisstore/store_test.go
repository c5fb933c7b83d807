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
		s := store(t, sqlstore.SQLite(db, sqlstore.Clock(clock)), server.URL, redisstore.Clock(clock))
		return stores(t, db, s)
	})
}
