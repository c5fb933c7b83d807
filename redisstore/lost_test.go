package redisstore_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testenv"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// SQL may lose what Redis knows: a standby that is promoted without the last
// revocations. A node that remembers records them again.
func TestEndThatSQLHasLost(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	node := store(t, sqlstore.SQLite(db), server.URL)
	s := signIn(t, node, "ann")
	end(t, node, s.ID)
	entries := func() (n int) {
		if err := db.QueryRow(`SELECT count(*) FROM counterfoil_feed WHERE ref = ?`, s.ID).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	end(t, node, s.ID)
	if n := entries(); n != 1 {
		t.Fatalf("%d entries of a session that was ended twice, want one", n)
	}
	for _, lose := range []string{`DELETE FROM counterfoil_feed`, `DELETE FROM counterfoil_journal`} {
		if _, err := db.Exec(lose); err != nil {
			t.Fatal(err)
		}
	}
	ended, err := node.Sessions().End(t.Context(), counterfoil.EndRequest{ID: s.ID, End: counterfoil.End{Reason: counterfoil.Revoked, Actor: "recovery"}, Retain: retain})
	if err != nil || ended.Changed || ended.Session.End.Reason != counterfoil.SignedOut {
		t.Fatalf("End: %+v, %v", ended, err)
	}
	if n := entries(); n != 1 {
		t.Errorf("%d entries once it was recorded again, want one: verifiers that begin now take its tokens", n)
	}
}

// A shard that came from another server of the cluster, its mark with it, is
// told again what it may lack, and its mark moves on: else it would be older
// than the journal one day, and be refused.
func TestMarkOfAnotherServer(t *testing.T) {
	server := redisServer(t)
	node := store(t, sqlstore.SQLite(tempDB(t)), server.URL)
	s := signIn(t, node, "ann")
	log := "cf:{" + s.ID[:2] + "}:log"
	id := do(t, server, "HGET", log, "id")
	do(t, server, "HSET", log, "id", "0123456789012345678901234567890123456789")
	for end := time.Now().Add(25 * time.Second); do(t, server, "HGET", log, "id") != id; {
		if time.Now().After(end) {
			t.Fatal("the mark stays that of another server")
		}
		time.Sleep(50 * time.Millisecond) // nothing tells when it becomes true
	}
	wantAlive(t, node, s.ID, "nothing has ended it")
}

func forgetCopies(t *testing.T, server *testenv.Redis, finish bool) {
	t.Helper()
	option, err := redisstore.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	i, err := redisstore.OpenImporter(t.Context(), option, redisstore.Logger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err = i.Forget(t.Context()); err == nil && finish {
		err = i.Finish(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A database that was restored ends all sessions, also those of subjects of
// which the backup knows nothing; and Redis may restart before a server is back.
func TestRestoredEndsSessionsOfUnknownSubjects(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	node := store(t, sqlstore.SQLite(db), server.URL)
	known, unknown, again := signIn(t, node, "ann"), signIn(t, node, "ben"), signIn(t, node, "cleo")
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`DELETE FROM counterfoil_subjects WHERE id <> 'ann'`); err != nil { // as in the backup
		t.Fatal(err)
	}
	forgetCopies(t, server, true)
	if _, err := sqlstore.SQLite(db).Restored(t.Context(), sqlstore.Restoration{Elsewhere: true, Actor: "operator"}); err != nil {
		t.Fatal(err)
	}
	forgetCopies(t, server, true)
	kill(t, server)
	restart(t, server)
	node = store(t, sqlstore.SQLite(db), server.URL)
	wantEnded(t, node, known.ID, "the database was restored")
	wantEnded(t, node, unknown.ID, "the database was restored, without its subject")
	fresh := signIn(t, node, "cleo")
	wantAlive(t, node, fresh.ID, "it began after the restore")
	wantEnded(t, node, again.ID, "the database was restored, and its subject came back")
}

// What a restore that keeps sessions finds untold is told after it.
func TestRestoredKeepsTheJournal(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	p := newProxy(t, server.Addr)
	node := store(t, sqlstore.SQLite(db), p.url())
	one, other := signIn(t, node, "ann"), signIn(t, node, "ann")
	p.cutAt("cut here")
	_, err := node.Sessions().End(t.Context(), counterfoil.EndRequest{ID: one.ID, End: counterfoil.End{Reason: counterfoil.Revoked, Actor: "cut here"}, Retain: retain})
	if err == nil {
		t.Fatal("End: no error though Redis was cut off")
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	forget(t, sqlstore.SQLite(db, sqlstore.WithoutSessions()))
	forgetCopies(t, server, false)
	if _, err := sqlstore.SQLite(db).Restored(t.Context(), sqlstore.Restoration{Elsewhere: true, KeepSessions: true, Actor: "operator"}); err != nil {
		t.Fatal(err)
	}
	forgetCopies(t, server, false)
	node = store(t, sqlstore.SQLite(db), server.URL)
	wantEnded(t, node, one.ID, "its end was committed before the restore")
	wantAlive(t, node, other.ID, "sessions are kept")
}

// A node that still reached the former master tells the new one what it told
// there, though another node has found the new one whole meanwhile.
func TestToldToAFormerMaster(t *testing.T) {
	former, next := redisServer(t), redisServer(t)
	if err := next.ReplicaOf(t.Context(), former); err != nil {
		t.Fatal(err)
	}
	db := tempDB(t)
	p := newProxy(t, former.Addr)
	late := store(t, sqlstore.SQLite(db), p.url())
	one := signIn(t, late, "ann")
	until(t, "the replica has the session", func() bool {
		return do(t, next, "EXISTS", "cf:{"+one.ID[:2]+"}:s:"+one.ID[2:]) == "1"
	})
	if err := next.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	early := store(t, sqlstore.SQLite(db), next.URL)
	wantAlive(t, early, one.ID, "nothing has ended it")
	key := "cf:{" + one.ID[:2] + "}:d"
	was := do(t, next, "ZSCORE", key, one.ID[2:])
	end(t, late, one.ID)
	until(t, "it is noted as told", func() bool {
		untold := 0
		if err := db.QueryRow(`SELECT count(*) FROM counterfoil_journal WHERE told_at IS NULL`).Scan(&untold); err != nil {
			t.Fatal(err)
		}
		return untold == 0
	})
	p.lead(next.Addr)
	// Nobody asks for the session: that would mend it.
	until(t, "the new master was told", func() bool { return do(t, next, "ZSCORE", key, one.ID[2:]) != was })
}

// A Redis that somebody empties is as good as new, also after its next start.
func TestEmptied(t *testing.T) {
	server := redisServer(t)
	node := store(t, sqlstore.SQLite(tempDB(t)), server.URL)
	signIn(t, node, "ann")
	do(t, server, "FLUSHALL")
	s := signIn(t, node, "ann")
	kill(t, server)
	restart(t, server)
	wantAlive(t, node, s.ID, "it began after Redis was emptied")
	do(t, server, "FLUSHALL")
	s = signIn(t, node, "ann")
	for end := time.Now().Add(25 * time.Second); do(t, server, "HGET", "cf:{"+s.ID[:2]+"}:log", "id") == ""; {
		if time.Now().After(end) {
			t.Fatal("the shards get no marks")
		}
		time.Sleep(50 * time.Millisecond) // nothing tells when it becomes true
	}
	until(t, "it has its name", func() bool { return do(t, server, "EXISTS", "cf:{00}:home") == "1" })
	kill(t, server)
	restart(t, server)
	wantAlive(t, node, s.ID, "it began after Redis was emptied")
}
