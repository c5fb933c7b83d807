package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// sqliteFor makes a database as serve would, and changes it by statements.
func sqliteFor(t *testing.T, statements ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "counterfoil.db")
	if _, err := runQuietly("migrate", "--database", "sqlite:"+path); err != nil {
		t.Fatal(err)
	}
	change(t, "sqlite", path, statements...)
	return path
}

func change(t *testing.T, driver, source string, statements ...string) {
	t.Helper()
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range statements {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Each state of a SQLite deployment, made for real, and what the doctor says.
func TestDoctorOnSQLite(t *testing.T) {
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).UnixMilli() }
	aMove := func(role string, alive time.Duration, fenced, moved string) string {
		return fmt.Sprintf(`INSERT INTO counterfoil_moves (id, run, role, source, target, alive_at, fenced_at, moved_at)
			VALUES (1, 'r', '%s', 'sqlite:old', 'postgres://new', %d, %s, %s)`, role, ago(alive), fenced, moved)
	}
	fencedAt := fmt.Sprint(ago(3 * time.Minute))
	for _, test := range []struct {
		name          string
		sql           []string
		check, status string
		words         string
	}{
		{"wal", nil, "journal", statusOK, "wal"},
		{"no wal", []string{"PRAGMA journal_mode = DELETE"}, "journal", statusWarn, "serve sets it"},
		{"synchronous", nil, "synchronous", statusOK, "FULL"},
		{"tables", nil, "tables", statusOK, "of this version"},
		{"older tables", []string{"DELETE FROM counterfoil_schema WHERE version = 4"}, "tables", statusWarn, "0004_many_nodes.sql"},
		{"newer tables", []string{"INSERT INTO counterfoil_schema VALUES (99, 'counterfoil', NULL), (98, 'counterfoil', NULL)"}, "tables", statusFail, "newer"},
		{"foreign", []string{"ALTER TABLE counterfoil_schema RENAME TO other", "DROP TABLE other", "CREATE TABLE invoices (id)"}, "tables", statusWarn, "none yet"},
		{"log", nil, "log", statusOK, "position 0"},
		{"log not swept", []string{fmt.Sprintf("INSERT INTO counterfoil_feed (kind, ref, until) VALUES ('s', 'x', %d)", ago(time.Hour))}, "log", statusWarn, "1 entry should"},
		{"told", []string{"UPDATE counterfoil_meta SET sessions_in = 'redis'"}, "journal of sessions", statusOK, "told of every"},
		{"untold", []string{"UPDATE counterfoil_meta SET sessions_in = 'redis'", "INSERT INTO counterfoil_journal (kind, ref, detail) VALUES ('s', 'x', '{}')"}, "journal of sessions", statusFail, "1 revocation not told"},
		{"move goes on", []string{aMove("source", time.Second, "NULL", "NULL")}, "move", statusOK, "copied to postgres://new"},
		{"move stopped", []string{aMove("source", time.Hour, "NULL", "NULL")}, "move", statusWarn, "again"},
		{"move fenced", []string{aMove("source", time.Hour, fencedAt, "NULL")}, "move", statusFail, "nobody can sign in"},
		{"move switches", []string{aMove("source", time.Second, fencedAt, "NULL")}, "move", statusWarn, "about to switch"},
		{"moved", []string{aMove("source", time.Hour, fencedAt, fencedAt)}, "move", statusFail, "give the new --database"},
		{"filled", []string{aMove("target", time.Second, "NULL", "NULL")}, "move", statusWarn, "filling"},
		{"half filled", []string{aMove("target", time.Hour, "NULL", "NULL")}, "move", statusFail, "cannot be used"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := sqliteFor(t, test.sql...)
			expect(t, diagnose(t, nil, nil, nil, "--database", "sqlite:"+path), test.check, test.status, test.words)
		})
	}
}

func TestDoctorOnFiles(t *testing.T) {
	path := sqliteFor(t)
	look := func() []finding { return diagnose(t, nil, nil, nil, "--database", "sqlite:"+path) }
	expect(t, look(), "file", statusOK, "only its owner")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, look(), "file", statusWarn, "chmod 600", "0644")
	if err := os.WriteFile(path, []byte("no database at all, but long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, look(), "file", statusFail, "not a SQLite database")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, look(), "file", statusWarn, "first start")
	path = t.TempDir() + "/none/x.db"
	expect(t, look(), "file", statusFail, "no folder")
}

func TestDoctorOnDisks(t *testing.T) {
	for free, status := range map[int64]string{noDiskLimit: statusOK, 50 << 20: statusFail, 500 << 20: statusWarn, 5 << 30: statusOK} {
		if f := judgeFree("/", free); f.Status != status {
			t.Errorf("%d bytes: %s, want %s", free, f.Status, status)
		}
	}
	if d, err := diskOf(t.TempDir()); err != nil || d.free == 0 {
		t.Errorf("the disk of a folder: %+v, %v", d, err)
	}
	if f := checkOpenFiles(1); len(f) > 0 && f[0].Status != statusOK {
		t.Error(f)
	}
	if f := checkOpenFiles(1 << 40); len(f) > 0 && f[0].Status != statusWarn {
		t.Error(f)
	}
}

// The seal and the keys that it opens, on a database that serve made.
func TestDoctorOnKeys(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "counterfoil.db")
	server, err := startServer(dir, cleanEnv(), "--database", "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	look := func(env ...string) []finding { return diagnose(t, nil, nil, env, "--database", "sqlite:"+path) }
	expect(t, look(), "seal", statusOK, "opens every signing key")
	expect(t, look(), "active key", statusOK, "ES256")
	expect(t, look(), "next key", statusOK)

	if err := os.Chmod(path+".seal", 0o640); err != nil {
		t.Fatal(err)
	}
	expect(t, look(), "seal file", statusFail, "chmod 600")
	if err := os.Rename(path+".seal", path+".kept"); err != nil {
		t.Fatal(err)
	}
	expect(t, look(), "seal", statusFail, "put it back")
	expect(t, look("COUNTERFOIL_SEAL=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "seal", statusFail, "does not open")
	expect(t, look("COUNTERFOIL_SEAL=AAAA"), "seal", statusFail, "32 bytes")
	expect(t, diagnose(t, nil, nil, []string{"COUNTERFOIL_SEAL=AAAA"}, "--database", "sqlite:"+path, "--seal-file", path+".kept"), "seal", statusFail, "both given")
	if _, err := os.Stat(path + ".seal"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the doctor made a seal")
	}
	expect(t, diagnose(t, nil, nil, nil, "--database", "sqlite:"+path, "--algorithm", "EdDSA", "--seal-file", path+".kept"), "active key", statusWarn, "--algorithm")
	old := func() time.Time { return time.Now().Add(2 * 365 * day) }
	expect(t, diagnose(t, old, nil, nil, "--database", "sqlite:"+path), "active key", statusWarn, "counterfoil keys rotate")
	change(t, "sqlite", path, "DELETE FROM counterfoil_keys WHERE state = 'next'")
	expect(t, look(), "next key", statusFail)
	change(t, "sqlite", path, "UPDATE counterfoil_keys SET state = 'retiring', until = 1")
	expect(t, look(), "retiring keys", statusWarn)
	expect(t, look(), "active key", statusFail)
}

func TestDoctorOnAPIKeys(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, test := range []struct {
		name   string
		key    counterfoil.APIKey
		status string
	}{
		{"good", counterfoil.APIKey{CreatedAt: at(-200 * day), LastUsedAt: at(-day)}, statusOK},
		{"new", counterfoil.APIKey{CreatedAt: at(-day)}, statusOK},
		{"revoked", counterfoil.APIKey{CreatedAt: at(-200 * day), RevokedAt: at(-day)}, statusOK},
		{"never used", counterfoil.APIKey{CreatedAt: at(-200 * day)}, statusWarn},
		{"unused", counterfoil.APIKey{CreatedAt: at(-200 * day), LastUsedAt: at(-100 * day)}, statusWarn},
		{"expires", counterfoil.APIKey{CreatedAt: at(-day), LastUsedAt: at(-time.Hour), ExpiresAt: at(day)}, statusWarn},
		{"expired in use", counterfoil.APIKey{CreatedAt: at(-day), LastUsedAt: at(-time.Hour), ExpiresAt: at(-time.Minute)}, statusFail},
		{"expired", counterfoil.APIKey{CreatedAt: at(-90 * day), LastUsedAt: at(-30 * day), ExpiresAt: at(-20 * day)}, statusOK},
	} {
		if found := judgeAPIKeys([]counterfoil.APIKey{test.key}, now); len(found) != 1 || found[0].Status != test.status {
			t.Errorf("%s: %+v, want %s", test.name, found, test.status)
		}
	}
	path := sqliteFor(t)
	if _, err := runQuietly("api-key", "create", "--name", "shop", "--expires", "1d", "--database", "sqlite:"+path); err != nil {
		t.Fatal(err)
	}
	expect(t, diagnose(t, nil, nil, nil, "--database", "sqlite:"+path), "API keys: shop", statusWarn, "counterfoil api-key create", "counterfoil api-key revoke")
}

// The doctor's pool cannot write, whatever it is asked for.
func TestDoctorCannotWrite(t *testing.T) {
	sources := []string{"sqlite:" + sqliteFor(t)}
	if os.Getenv("COUNTERFOIL_TEST_POSTGRES") != "" {
		source := testPostgres(t)
		if _, err := runQuietly("migrate", "--database", source); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, source)
	}
	for _, source := range sources {
		d, err := parseDatabase(source)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.connectReading(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.db.ExecContext(context.Background(), "UPDATE counterfoil_meta SET key_version = 7"); err == nil {
			t.Errorf("%s: a write went through", d)
		}
		if err := errors.Join(d.store.Close(), d.close()); err != nil {
			t.Error(err)
		}
	}
}
