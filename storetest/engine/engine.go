// Package engine opens the store that a run of the tests is about. Suites that
// know stores through interfaces only use it, so that they run on each store,
// and on one node or several, without a word about either:
//
//	COUNTERFOIL_TEST_STORE=memory|sqlite|postgresql|redis    (default memory)
//	COUNTERFOIL_TEST_NODES=1|2|…                             (default 1)
//
// PostgreSQL and Redis are the servers that COUNTERFOIL_TEST_POSTGRES and
// COUNTERFOIL_TEST_REDIS_URL name (make test). Beside Redis, SQLite holds what
// is not a session.
package engine

import (
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/memstore"
)

const (
	storeVariable = "COUNTERFOIL_TEST_STORE"
	nodesVariable = "COUNTERFOIL_TEST_NODES"
)

// The kinds of stores.
const (
	Memory     = "memory"
	SQLite     = "sqlite"
	PostgreSQL = "postgresql"
	Redis      = "redis"
)

// Store is what all stores are: an authority's and a directory's.
type Store interface {
	counterfoil.Store
	Users() directory.Store
}

// Kind is the kind of store that this run is about.
func Kind() string {
	if kind := os.Getenv(storeVariable); kind != "" {
		return kind
	}
	return Memory
}

// Nodes is how many nodes a helper puts on one database.
func Nodes() int {
	if n, err := strconv.Atoi(os.Getenv(nodesVariable)); err == nil && n > 0 {
		return n
	}
	return 1
}

// Database is an empty database of a test's own, gone with the test.
type Database struct {
	node func(t testing.TB) Store
	bell *bell // in a bubble
}

// Open makes a database. clock is that of the store; in a bubble of
// testing/synctest it is the bubble's.
func Open(t testing.TB, clock func() time.Time) *Database {
	t.Helper()
	d := &Database{}
	if inBubble() {
		d.bell = &bell{tails: map[*belled]struct{}{}}
	}
	switch kind := Kind(); kind {
	case Memory:
		store := memstore.New(memstore.Clock(clock))
		d.node = func(testing.TB) Store { return store }
		d.bell = nil // it hears of every change itself
	case SQLite:
		d.node = openSQLite(t, clock)
	case PostgreSQL:
		d.node = openPostgreSQL(t, clock)
	case Redis:
		if inBubble() {
			t.Skip("the client of Redis reads at all times, which holds simulated time up")
		}
		d.node = openRedis(t, clock)
	default:
		t.Fatalf("%s: there is no store %q", storeVariable, kind)
	}
	return d
}

// Store is the database as one more node sees it, over connections of its own.
// In memory all nodes share the one value.
func (d *Database) Store(t testing.TB) Store {
	t.Helper()
	store := d.node(t)
	if d.bell != nil {
		return d.bell.over(store)
	}
	return store
}

// inBubble tells by the time that every bubble begins with.
func inBubble() bool { return time.Now().Year() < 2010 }

// Turns gives one of several after the other, for tests that ask a node after
// the other. It is safe for concurrent use.
type Turns[T any] struct {
	mu   sync.Mutex
	all  []T
	next int
}

// InTurn makes a Turns; the first comes first.
func InTurn[T any](all ...T) *Turns[T] { return &Turns[T]{all: all} }

// Next is whose turn it is.
func (t *Turns[T]) Next() T {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.all[t.next]
	t.next = (t.next + 1) % len(t.all)
	return one
}

// All are all of them, the first first.
func (t *Turns[T]) All() []T { return t.all }
