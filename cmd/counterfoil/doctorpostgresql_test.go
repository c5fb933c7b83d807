//go:build unix

package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/testenv"
)

// What a healthy PostgreSQL says, and what is said of each setting that is not.
func TestDoctorJudgesPostgreSQL(t *testing.T) {
	healthy := func() *postgresState {
		return &postgresState{
			version: 150004, fsync: "on", fullPageWrites: "on", commit: "on", autovac: "on", standbyNames: "ANY 1 (b)", connections: 100, reserved: 3, used: 10,
			standbys: []standby{{name: "b", state: "streaming", sync: "quorum"}}, encrypted: true, remote: true, pool: 16, nodes: 2,
		}
	}
	judge := func(s *postgresState) []finding {
		found := append(judgeServer(s), judgeDurability(s)...)
		found = append(append(found, judgeStandbys(s)...), judgeConnections(s))
		return append(found, judgeHousekeeping(s)...)
	}
	for _, f := range judge(healthy()) {
		if f.Status != statusOK {
			t.Errorf("healthy: %+v", f)
		}
	}
	for _, test := range []struct {
		name          string
		change        func(*postgresState)
		check, status string
		words         string
	}{
		{"too old", func(s *postgresState) { s.version = 110010 }, "version", statusFail, "refuses"},
		{"old", func(s *postgresState) { s.version = 130010 }, "version", statusWarn, "fixes"},
		{"standby", func(s *postgresState) { s.standby = true }, "role", statusFail, "pg_promote"},
		{"in the clear", func(s *postgresState) { s.encrypted = false }, "encryption", statusWarn, "sslmode=verify-full"},
		{"commit off", func(s *postgresState) { s.commit = "off" }, "synchronous_commit", statusFail, "refuses to start"},
		{"commit local", func(s *postgresState) { s.commit = "local" }, "synchronous_commit", statusWarn, "promoted"},
		{"fsync", func(s *postgresState) { s.fsync = "off" }, "fsync", statusFail, "fsync = on"},
		{"pages", func(s *postgresState) { s.fullPageWrites = "off" }, "full_page_writes", statusWarn, "ZFS"},
		{"alone", func(s *postgresState) { s.standbyNames, s.standbys = "", nil }, "standbys", statusWarn, "last backup"},
		{"asynchronous", func(s *postgresState) { s.standbyNames, s.standbys[0].sync = "", "async" }, "standbys", statusWarn, "synchronous_standby_names"},
		{"gone", func(s *postgresState) { s.standbys = nil }, "standbys", statusFail, "every commit waits"},
		{"late", func(s *postgresState) { s.standbys[0].lag = time.Minute }, "standby b", statusWarn, "pg_stat_replication"},
		{"far behind", func(s *postgresState) { s.standbys[0].behind = 1 << 30 }, "standby b", statusWarn, "1024.0 MB"},
		{"hidden standbys", func(s *postgresState) { s.hidden = true }, "standbys", statusWarn, "pg_monitor"},
		{"no room", func(s *postgresState) { s.nodes = 7 }, "connections", statusFail, "max_connections"},
		{"no room for one more", func(s *postgresState) { s.nodes = 6 }, "connections", statusWarn, "rolling"},
		{"taken", func(s *postgresState) { s.used = 95 }, "connections", statusWarn, "pg_stat_activity"},
		{"open", func(s *postgresState) { s.oldest = &transaction{7, "psql", "idle in transaction", time.Hour} }, "open transactions", statusWarn, "pg_terminate_backend(7)"},
		{"prepared", func(s *postgresState) { s.prepared = 1 }, "prepared transactions", statusWarn, "pg_prepared_xacts"},
		{"autovacuum", func(s *postgresState) { s.autovac = "off" }, "autovacuum", statusFail, "autovacuum = on"},
		{"dead", func(s *postgresState) { s.bloated = []bloat{{"counterfoil_feed", 10, 100000}} }, "dead rows", statusWarn, "VACUUM (ANALYZE) counterfoil_feed"},
		{"ids", func(s *postgresState) { s.frozen = 1_500_000_000 }, "transaction ids", statusWarn, "FREEZE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := healthy()
			test.change(s)
			expect(t, judge(s), test.check, test.status, test.words)
		})
	}
}

// ownPostgres is a server whose settings the test may change.
func ownPostgres(t *testing.T) (server *testenv.Postgres, dir string) {
	t.Helper()
	bin := os.Getenv(testenv.PostgresBin)
	if bin == "" {
		if os.Getenv(testenv.All) == "1" {
			t.Fatal(testenv.PostgresBin + " is not set")
		}
		t.Skip(testenv.PostgresBin + " is not set: run make test")
	}
	dir, err := os.MkdirTemp("/tmp", "counterfoil-doctor-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // for the user that PostgreSQL runs as
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	server, err = testenv.StartPostgres(context.Background(), bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server, dir
}

// Against a real server with a real standby: what is read is what is.
func TestDoctorOnPostgreSQL(t *testing.T) {
	notUnderRace(t)
	server, dir := ownPostgres(t)
	source := server.URL
	seal := filepath.Join(t.TempDir(), "seal")
	if err := os.WriteFile(seal, []byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), 0o600); err != nil {
		t.Fatal(err)
	}
	look := func(source string) []finding {
		return diagnose(t, nil, nil, nil, "--database", source, "--seal-file", seal)
	}
	expect(t, look(source), "tables", statusWarn, "none yet")
	change(t, "pgx", source, "CREATE TABLE invoices (id int)")
	expect(t, look(source), "tables", statusFail, "another application")
	change(t, "pgx", source, "DROP TABLE invoices")
	node, err := startServer(t.TempDir(), cleanEnv(), "--database", source, "--seal-file", seal)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.kill() }()

	found := look(source)
	for _, check := range []string{"tables", "version", "role", "synchronous_commit", "fsync", "full_page_writes", "connections", "autovacuum", "open transactions", "clock: database", "keys: seal"} {
		expect(t, found, check, statusOK)
	}
	expect(t, found, "standbys", statusWarn, "none")
	expect(t, diagnose(t, nil, nil, nil, "--database", source), "seal", statusFail, "--seal-file")

	set := func(settings ...string) {
		t.Helper()
		for _, s := range settings {
			change(t, "pgx", source, "ALTER SYSTEM SET "+s)
		}
		change(t, "pgx", source, "SELECT pg_reload_conf()")
	}
	set("autovacuum = off", "full_page_writes = off")
	eventually(t, func() bool { return has(look(source), "autovacuum", statusFail) })
	change(t, "pgx", source, "ALTER ROLE postgres SET synchronous_commit = off")
	expect(t, look(source), "synchronous_commit", statusFail)
	change(t, "pgx", source, "ALTER ROLE postgres SET synchronous_commit = on")

	second, err := testenv.StartStandby(context.Background(), server, dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, func() bool { return has(look(source), "standbys", statusOK) })
	expect(t, look(second.URL), "role", statusFail, "standby")
	set("synchronous_standby_names = 'elsewhere'")
	eventually(t, func() bool { return has(look(source), "standbys", statusFail) })
	set("synchronous_standby_names = ''")
	eventually(t, func() bool { return has(look(source), "standbys", statusWarn) })

	u, err := url.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	change(t, "pgx", source, "CREATE ROLE small LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO small", "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO small")
	u.User = url.User("small")
	found = look(u.String())
	expect(t, found, "standbys", statusWarn, "pg_monitor")
	expect(t, found, "open transactions", statusWarn, "pg_monitor")
	change(t, "pgx", source, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM small")
	expect(t, look(u.String()), "tables", statusFail, "permission denied")

	u.Host = "127.0.0.1:1"
	expect(t, look(u.String()), "connection", statusFail, "nothing is minted")
}

// The transaction that is open longest is the one that is named.
func TestDoctorOnOpenTransactions(t *testing.T) {
	source := testPostgres(t)
	db, err := sql.Open("pgx", source)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var pid int
	if err := tx.QueryRow("SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	d, err := parseDatabase(source)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.connectReading(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	s := &postgresState{}
	if err := s.readOldest(context.Background(), d); err != nil || s.oldest == nil || s.oldest.open <= 0 {
		t.Fatal(fmt.Sprintf("%+v", s.oldest), err)
	}
	if s.oldest.pid == pid && s.oldest.state != "idle in transaction" {
		t.Errorf("%+v", s.oldest)
	}
}

func has(found []finding, check, status string) bool {
	for _, f := range found {
		if f.Check == check && f.Status == status {
			return true
		}
	}
	return false
}

// eventually waits for what a server does a moment later.
func eventually(t *testing.T, what func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !what() {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
}
