package sqlstore_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// Ceremonies and counters are made by whoever comes: one purge deletes all that
// are past, however few sessions it may delete.
func TestPurgeKeepsUpWithStrangers(t *testing.T) {
	const many = 250
	run := func(t *testing.T, db *sql.DB, of func(*sql.DB, ...sqlstore.Option) *sqlstore.Store) {
		now := time.Now()
		store := opened(t, of(db, sqlstore.Clock(func() time.Time { return now })))
		for i := range many {
			c := directory.Ceremony{Challenge: fmt.Sprint(i), Kind: "sign_in", ExpiresAt: now.Add(time.Minute)}
			if err := store.Users().AddCeremony(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			err := store.Users().Throttle(t.Context(), []string{fmt.Sprint(i)}, func(counters []directory.Counter) error {
				counters[0].ExpiresAt = now.Add(time.Minute)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		left := func() string {
			return text(t, db, `SELECT (SELECT count(*) FROM counterfoil_ceremonies) || ' ' || (SELECT count(*) FROM counterfoil_throttle)`)
		}
		if _, err := store.Sessions().Purge(t.Context(), now, 1); err != nil || left() != fmt.Sprint(many, " ", many) {
			t.Fatalf("of those that are not past %s are left, want all; %v", left(), err)
		}
		now = now.Add(time.Hour)
		if _, err := store.Sessions().Purge(t.Context(), now, 1); err != nil || left() != "0 0" {
			t.Errorf("of those that are past %s are left, want none; %v", left(), err)
		}
	}
	t.Run("SQLite", func(t *testing.T) { run(t, sqliteDB(t, filepath.Join(t.TempDir(), "test.db")), sqlstore.SQLite) })
	t.Run("PostgreSQL", func(t *testing.T) { run(t, postgresDB(t, nil), sqlstore.PostgreSQL) })
}
