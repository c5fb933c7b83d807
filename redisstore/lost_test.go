package redisstore_test

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
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
