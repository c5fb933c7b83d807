// Package storetest is the executable specification of the stores: what the
// doc comments of [counterfoil.Store] and [directory.Store] promise, as tests
// that any implementation can run against itself, a fresh store per test:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Stores {
//			s := mystore.New(mystore.Clock(clock))
//			return storetest.Stores{Store: s, Users: s.Users()}
//		})
//	}
//
// What it asks beyond the wording of the interfaces is said in the tests:
//
//   - Times come back in UTC and exact to the millisecond at least; a finer
//     part may be cut off.
//   - A text is kept exactly as given, byte by byte and letter case included,
//     or refused with an error that leaves nothing behind; never changed.
//     Printable texts of up to 255 bytes are kept, other fields of a session
//     up to 8 KiB.
//   - An error that is an answer ([counterfoil.ErrNotFound] and the like)
//     leaves the caller's transaction usable.
package storetest

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// Stores is a store under test with what belongs to it.
type Stores struct {
	// Store is open, empty and takes its time from the clock that it was
	// opened with.
	Store counterfoil.Store
	// Users shares the database with Store. Nil: the store has no users, and
	// their tests are skipped.
	Users directory.Store
	// BeginTx starts a transaction of the application in the same database,
	// for [counterfoil.Store.InTx]. Nil: the store speaks no SQL.
	BeginTx func(ctx context.Context) (*sql.Tx, error)
	// Elsewhere says that sessions are kept apart from that database: a
	// transaction can end them and change subjects, but add or change none.
	Elsewhere bool

	// Seed repeats the random choices of an earlier run; 0 makes a new one,
	// which is printed.
	Seed uint64
	// Rounds is how often each race is run; 0 means 40, and 10 with -short.
	Rounds int
}

// Run tests the stores that open gives. open is called for each test anew,
// with the clock that the store has to use, and cleans up by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T, clock func() time.Time) Stores) {
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, d := range g.duties {
				t.Run(d.name, func(t *testing.T) {
					e := newEnv(t, open)
					e.skipWithout(g.needs)
					d.check(t, e)
				})
			}
		})
	}
}
