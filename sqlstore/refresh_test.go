package sqlstore_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// A thousand tabs refresh one session at once: all succeed, and nobody is signed out.
func TestThousandParallelRefreshes(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		db := sqliteDB(t, filepath.Join(t.TempDir(), "test.db"))
		db.SetMaxOpenConns(16)
		refreshAtOnce(t, sqlstore.SQLite(db))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		db := postgresDB(t, nil)
		db.SetMaxOpenConns(16) // an unbounded pool would ask for more connections than the server has
		refreshAtOnce(t, sqlstore.PostgreSQL(db))
	})
}

func refreshAtOnce(t *testing.T, store *sqlstore.Store) {
	auth, err := counterfoil.New(t.Context(), store, counterfoil.Config{
		Issuer: "https://app.example", Audiences: []string{"app"},
		Seal: counterfoil.SealSecrets(make([]byte, 32)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	grant, err := auth.StartSession(t.Context(), counterfoil.SignIn{Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.Verifier("")
	if err != nil {
		t.Fatal(err)
	}
	token := grant.SessionToken.Reveal()
	var tabs sync.WaitGroup
	for range 1000 {
		tabs.Go(func() {
			fresh, err := auth.Refresh(t.Context(), token, counterfoil.RefreshRequest{})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := verifier.Check(t.Context(), fresh.AccessToken); err != nil {
				t.Error(err)
			}
		})
	}
	tabs.Wait()
	if _, err := auth.Authenticate(t.Context(), token); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Reads of sessions that come at once share statements. Each gets its own
// session, in memory of its own, and never one from before it asked.
func TestParallelReads(t *testing.T) {
	store := opened(t, sqlstore.PostgreSQL(postgresDB(t, nil)))
	sessions := store.Sessions()
	var sids []string
	for range 50 {
		add := session("alice")
		add.Extra = map[string]any{"sid": add.ID}
		if _, err := sessions.Insert(t.Context(), add); err != nil {
			t.Fatal(err)
		}
		sids = append(sids, add.ID)
	}
	var ended [50]atomic.Bool
	var readers sync.WaitGroup
	for reader := range 100 {
		readers.Go(func() {
			for round := range 50 {
				i := (reader + round) % len(sids)
				over := ended[i].Load()
				snap, err := sessions.Snapshot(t.Context(), sids[i])
				switch {
				case err != nil:
					t.Error(err)
				case snap.Session.ID != sids[i] || snap.Session.Extra["sid"] != sids[i] || snap.Session.Subject != "alice":
					t.Errorf("asked for %s, got %+v", sids[i], snap.Session)
				case over && snap.Session.End == nil:
					t.Errorf("%s had ended before it was read, and is active", sids[i])
				}
				snap.Session.Extra["sid"] = "written over"
				if _, err := sessions.Snapshot(t.Context(), "nobody's"); !errors.Is(err, counterfoil.ErrNotFound) {
					t.Errorf("a session that is not there: %v", err)
				}
				if _, err := sessions.Snapshot(t.Context(), "a\x00b"); !errors.Is(err, counterfoil.ErrNotFound) {
					t.Errorf("an id that is none: %v", err)
				}
			}
		})
	}
	for i := 0; i < len(sids); i += 2 {
		_, err := sessions.End(t.Context(), counterfoil.EndRequest{ID: sids[i], End: counterfoil.End{Reason: counterfoil.SignedOut, Actor: "user"}, Retain: time.Minute})
		if err != nil {
			t.Error(err)
		}
		ended[i].Store(true)
	}
	readers.Wait()
}
