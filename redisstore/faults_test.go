package redisstore_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/testenv"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

const retain = 5 * time.Minute

func signIn(t testing.TB, s *redisstore.Store, subject string) counterfoil.Session {
	t.Helper()
	now := time.Now().UTC()
	snap, err := s.Sessions().Insert(t.Context(), counterfoil.Session{
		ID: opaque.NewSelector(subject), Subject: subject, ClientID: "default", CreatedAt: now, LastActiveAt: now,
		IdleTimeout: time.Hour, ExpiresAt: now.Add(24 * time.Hour), AuthTime: now, Methods: []string{"pwd"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return snap.Session
}

func end(t testing.TB, s *redisstore.Store, id string) {
	t.Helper()
	_, err := s.Sessions().End(t.Context(), counterfoil.EndRequest{ID: id, End: counterfoil.End{Reason: counterfoil.SignedOut, Actor: "user"}, Retain: retain})
	if err != nil {
		t.Fatal(err)
	}
}

func signOut(t testing.TB, s *redisstore.Store, subject string) counterfoil.Advanced {
	t.Helper()
	done, err := s.Sessions().Advance(t.Context(), counterfoil.Advance{Subject: subject, SignOut: true, Retain: retain,
		End: counterfoil.End{Reason: counterfoil.PasswordChanged, Actor: "user"}})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// wantEnded asks until the store answers, and wants no answer to show the
// session alive.
func wantEnded(t testing.TB, s *redisstore.Store, id, why string) {
	t.Helper()
	until(t, "an answer", func() bool {
		snap, err := s.Sessions().Snapshot(t.Context(), id)
		switch {
		case errors.Is(err, counterfoil.ErrStoreUnavailable):
			return false
		case err != nil:
			t.Fatalf("%s: %v", why, err)
		case snap.Session.End == nil:
			t.Fatalf("a session is alive: %s", why)
		}
		return true
	})
}

func wantAlive(t testing.TB, s *redisstore.Store, id, why string) {
	t.Helper()
	until(t, "alive: "+why, func() bool {
		snap, err := s.Sessions().Snapshot(t.Context(), id)
		return err == nil && snap.Session.End == nil
	})
}

// forget empties the feed log, so that nothing but the journal knows what ended.
func forget(t testing.TB, db *sqlstore.Store) {
	t.Helper()
	if _, err := db.Feed().Prune(t.Context(), time.Now().Add(time.Hour), 1000); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func restart(t testing.TB, r *testenv.Redis) {
	t.Helper()
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func kill(t testing.TB, r *testenv.Redis) {
	t.Helper()
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
}

// A server that restarts with older data is told again what it lost, before a
// session is believed: by the node that was there, and by one that was not and
// finds nothing in the feed log any more.
func TestOlderData(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	node := store(t, sqlstore.SQLite(db), server.URL)
	one, all, kept := signIn(t, node, "ann"), signIn(t, node, "ben"), signIn(t, node, "cleo")
	lost := signIn(t, node, "cleo")
	old := filepath.Join(t.TempDir(), "old")
	kill(t, server)
	copyDir(t, server.Dir, old)
	restart(t, server)
	wantAlive(t, node, one.ID, "nothing has ended it")

	end(t, node, one.ID)
	signOut(t, node, "ben")
	_, err := node.Sessions().Advance(t.Context(), counterfoil.Advance{Subject: "cleo", SignOut: true, Keep: &counterfoil.Keep{ID: kept.ID}, Retain: retain,
		End: counterfoil.End{Reason: counterfoil.SignedOutEverywhere, Actor: "user"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice: what was mended is marked as whole
		kill(t, server)
		copyDir(t, old, server.Dir)
		restart(t, server)
		wantEnded(t, node, one.ID, "it was ended, and Redis went back")
		wantEnded(t, node, all.ID, "its subject was signed out, and Redis went back")
		wantEnded(t, node, lost.ID, "another was kept, and Redis went back")
		wantAlive(t, node, kept.ID, "it was kept")
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	forget(t, sqlstore.SQLite(db, sqlstore.WithoutSessions()))
	kill(t, server)
	copyDir(t, old, server.Dir)
	restart(t, server)
	other := store(t, sqlstore.SQLite(db), server.URL)
	wantEnded(t, other, one.ID, "it was ended, and Redis went back while nobody looked")
	wantEnded(t, other, all.ID, "its subject was signed out, and Redis went back while nobody looked")
	wantAlive(t, other, kept.ID, "it was kept")
}

// Data from before the journal begins are refused, and nothing is minted.
func TestDataOlderThanTheJournal(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	node := store(t, sqlstore.SQLite(db), server.URL)
	s := signIn(t, node, "ann")
	old := filepath.Join(t.TempDir(), "old")
	kill(t, server)
	copyDir(t, server.Dir, old)
	restart(t, server)
	wantAlive(t, node, s.ID, "nothing has ended it")
	end(t, node, s.ID)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	// Hours later another node has run for a while, and the journal is short.
	if _, err := db.Exec(`UPDATE counterfoil_meta SET journal_from = ?`, time.Now().Add(time.Minute).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`DELETE FROM counterfoil_journal`); err != nil {
		t.Fatal(err)
	}
	kill(t, server)
	copyDir(t, old, server.Dir)
	restart(t, server)
	option, err := redisstore.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	other := redisstore.New(sqlstore.SQLite(db), option, redisstore.Logger(slog.New(slog.DiscardHandler)))
	if err := other.Open(t.Context()); !errors.Is(err, redisstore.ErrRestored) {
		t.Errorf("Open over data that nobody can complete: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

// A replica that takes over without what ended a session.
func TestPromotion(t *testing.T) {
	master, replica := redisServer(t), redisServer(t)
	if err := replica.ReplicaOf(t.Context(), master); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, master.Addr)
	node := store(t, sqlstore.SQLite(tempDB(t)), p.url())
	one, all := signIn(t, node, "ann"), signIn(t, node, "ben")
	until(t, "the replica has the sessions", func() bool {
		return do(t, replica, "EXISTS", "cf:{"+all.ID[:2]+"}:s:"+all.ID[2:]) == "1"
	})
	if err := replica.Promote(t.Context()); err != nil { // it hears no more
		t.Fatal(err)
	}
	end(t, node, one.ID)
	signOut(t, node, "ben")
	p.lead(replica.Addr)
	wantEnded(t, node, one.ID, "it was ended, and a replica took over that had not heard of it")
	wantEnded(t, node, all.ID, "its subject was signed out, and a replica took over that had not heard of it")
}

// A node that dies between SQL and Redis: the call fails, and the others tell.
func TestCrashBetween(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	p := newProxy(t, server.Addr)
	dying := store(t, sqlstore.SQLite(db), p.url())
	one, all := signIn(t, dying, "ann"), signIn(t, dying, "ben")
	p.cutAt("the actor of the end")
	_, err := dying.Sessions().End(t.Context(), counterfoil.EndRequest{ID: one.ID, End: counterfoil.End{Reason: counterfoil.Revoked, Actor: "the actor of the end"}, Retain: retain})
	if !errors.Is(err, counterfoil.ErrNotTold) || !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		t.Fatalf("End: %v, want that it is committed and not told", err)
	}
	p.lead(server.Addr)
	until(t, "it is connected again", func() bool {
		_, err := dying.Sessions().Snapshot(t.Context(), all.ID)
		return err == nil
	})
	p.cutAt("the actor of the sign-out")
	_, err = dying.Sessions().Advance(t.Context(), counterfoil.Advance{Subject: "ben", SignOut: true, Retain: retain,
		End: counterfoil.End{Reason: counterfoil.Revoked, Actor: "the actor of the sign-out"}})
	if !errors.Is(err, counterfoil.ErrNotTold) {
		t.Fatalf("Advance: %v, want that it is committed and not told", err)
	}
	forget(t, sqlstore.SQLite(db, sqlstore.WithoutSessions()))
	// Who starts tells what was left.
	other := store(t, sqlstore.SQLite(db), server.URL)
	for _, id := range []string{one.ID, all.ID} {
		wantEnded(t, other, id, "the call that ended it committed")
	}
	snap, err := other.Sessions().Snapshot(t.Context(), one.ID)
	if err != nil || snap.Session.End.Actor != "the actor of the end" {
		t.Errorf("ended by %+v, %v", snap.Session.End, err)
	}
}

// A node that runs tells what another has left, without a restart of anybody.
func TestRetold(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	p := newProxy(t, server.Addr)
	dying := store(t, sqlstore.SQLite(db), p.url())
	other := store(t, sqlstore.SQLite(db), server.URL)
	one := signIn(t, dying, "ann")
	p.cutAt("cut here")
	_, err := dying.Sessions().End(t.Context(), counterfoil.EndRequest{ID: one.ID, End: counterfoil.End{Reason: counterfoil.Revoked, Actor: "cut here"}, Retain: retain})
	if !errors.Is(err, counterfoil.ErrNotTold) {
		t.Fatalf("End: %v", err)
	}
	key := "cf:{" + one.ID[:2] + "}:d"
	was := do(t, server, "ZSCORE", key, one.ID[2:])
	until(t, "the record itself is ended", func() bool { return do(t, server, "ZSCORE", key, one.ID[2:]) != was })
	wantEnded(t, other, one.ID, "it was told")
}

// What ended in SQL is never shown alive once the log was read, though Redis
// was never told and nobody looked for it.
func TestContradiction(t *testing.T) {
	server := redisServer(t)
	node := store(t, sqlstore.SQLite(tempDB(t)), server.URL)
	s := signIn(t, node, "ann")
	shard, rest := s.ID[:2], s.ID[2:]
	record := do(t, server, "DUMP", "cf:{"+shard+"}:s:"+rest)
	copied := do(t, server, "DUMP", "cf:{"+shard+"}:u:ann")
	back := func() {
		do(t, server, "RESTORE", "cf:{"+shard+"}:s:"+rest, "0", record, "REPLACE")
		do(t, server, "RESTORE", "cf:{"+shard+"}:u:ann", "0", copied, "REPLACE")
	}
	tail, err := node.Feed().Tail(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	read := func() {
		if _, err := tail.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	end(t, node, s.ID)
	back() // without a restart of anything
	read()
	wantEnded(t, node, s.ID, "the log says that it was ended")
	signOut(t, node, "ann")
	back()
	read()
	wantEnded(t, node, s.ID, "the log says that it was ended")
	other := signIn(t, node, "ann")
	done, err := node.Sessions().Advance(t.Context(), counterfoil.Advance{Subject: "ann", Retain: retain})
	if err != nil {
		t.Fatal(err)
	}
	do(t, server, "RESTORE", "cf:{"+shard+"}:u:ann", "0", copied, "REPLACE")
	read()
	snap, err := node.Sessions().Snapshot(t.Context(), other.ID)
	if err != nil || snap.Subject.Epoch != done.Subject.Epoch {
		t.Errorf("epoch %d, %v; the log knows %d", snap.Subject.Epoch, err, done.Subject.Epoch)
	}
}

// A copy of a subject that is gone is made again from SQL.
func TestLostCopy(t *testing.T) {
	server := redisServer(t)
	node := store(t, sqlstore.SQLite(tempDB(t)), server.URL)
	first := signIn(t, node, "ann")
	signOut(t, node, "ann")
	second := signIn(t, node, "ann")
	do(t, server, "DEL", "cf:{"+first.ID[:2]+"}:u:ann")
	wantEnded(t, node, first.ID, "the subject was signed out")
	wantAlive(t, node, second.ID, "it started later")
	do(t, server, "DEL", "cf:{"+first.ID[:2]+"}:u:ann")
	third := signIn(t, node, "ann")
	if third.Epoch0 != second.Epoch0 {
		t.Errorf("epoch %d, want %d", third.Epoch0, second.Epoch0)
	}
}

// The epoch grows after a change of a session also where the node died before
// it could raise it.
func TestUnfinishedChange(t *testing.T) {
	server := redisServer(t)
	node := store(t, sqlstore.SQLite(tempDB(t)), server.URL)
	s := signIn(t, node, "ann")
	do(t, server, "ZADD", "cf:{"+s.ID[:2]+"}:p", "1", s.ID[2:]+":7")
	until(t, "the epoch grows", func() bool {
		sub, err := node.Sessions().Subject(t.Context(), "ann")
		return err == nil && sub.Epoch == s.Epoch0+1
	})
	until(t, "the note is gone", func() bool { return do(t, server, "ZCARD", "cf:{"+s.ID[:2]+"}:p") == "0" })
	snap, err := node.Sessions().Snapshot(t.Context(), s.ID)
	if err != nil || snap.Subject.Epoch != s.Epoch0+1 {
		t.Errorf("epoch %d, %v", snap.Subject.Epoch, err)
	}
}

// Two nodes, one Redis: what one did is there for the other.
func TestTwoNodes(t *testing.T) {
	server := redisServer(t)
	db := tempDB(t)
	a, b := store(t, sqlstore.SQLite(db), server.URL), store(t, sqlstore.SQLite(db), server.URL)
	for range 20 {
		s := signIn(t, a, "ann")
		wantAlive(t, b, s.ID, "it started on the other node")
		end(t, b, s.ID)
		wantEnded(t, a, s.ID, "it was ended on the other node")
		s = signIn(t, b, "ann")
		signOut(t, a, "ann")
		wantEnded(t, b, s.ID, "its subject was signed out on the other node")
	}
}

// A Redis that may evict is refused, and so is one of another database.
func TestRefused(t *testing.T) {
	server := redisServer(t, "maxmemory-policy allkeys-lru")
	option, err := redisstore.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := redisstore.New(sqlstore.SQLite(tempDB(t)), option).Open(t.Context()); err == nil {
		t.Error("a Redis that evicts was taken")
	}
	do(t, server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	store(t, sqlstore.SQLite(tempDB(t)), server.URL)
	err = redisstore.New(sqlstore.SQLite(tempDB(t)), option).Open(t.Context())
	if !errors.Is(err, redisstore.ErrForeign) {
		t.Errorf("the Redis of another database: %v", err)
	}
}
