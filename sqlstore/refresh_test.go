package sqlstore_test

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

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
