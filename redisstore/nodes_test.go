package redisstore_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// Two nodes end a session at once, while a third call signs out all others and
// wants to keep it: one entry in the log, one that changed it, and kept only
// by what comes before the end in the log.
func TestTwoNodesEndAndKeepAtOnce(t *testing.T) {
	server := redisServer(t, "appendfsync everysec")
	db := postgresDB(t)
	nodes := []*redisstore.Store{store(t, sqlstore.PostgreSQL(db), server.URL), store(t, sqlstore.PostgreSQL(db), server.URL)}
	const rounds = 80
	keptFirst, endedFirst := 0, 0
	for round := range rounds {
		subject := fmt.Sprintf("user-%d", round)
		now := time.Now().UTC()
		one := counterfoil.Session{
			ID: opaque.NewSelector(subject), Subject: subject, ClientID: "default", CreatedAt: now, LastActiveAt: now,
			IdleTimeout: time.Hour, ExpiresAt: now.Add(time.Hour), AuthTime: now, Methods: []string{"pwd"},
		}
		if _, err := nodes[0].Sessions().Insert(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		var ended [2]counterfoil.Ended
		var advanced counterfoil.Advanced
		start := make(chan struct{})
		for i, node := range nodes {
			done.Go(func() {
				<-start
				var err error
				ended[i], err = node.Sessions().End(t.Context(), counterfoil.EndRequest{
					ID: one.ID, Retain: time.Minute, End: counterfoil.End{Reason: counterfoil.SignedOut, Actor: fmt.Sprint("node ", i)}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		keeping := round%2 == 0
		if keeping {
			done.Go(func() {
				<-start
				var err error
				advanced, err = nodes[round/2%2].Sessions().Advance(t.Context(), counterfoil.Advance{
					Subject: subject, SignOut: true, Retain: time.Minute, End: counterfoil.End{Reason: counterfoil.SignedOut},
					Keep: &counterfoil.Keep{ID: one.ID}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		done.Wait()
		if t.Failed() {
			t.FailNow()
		}
		if ended[0].Changed == ended[1].Changed {
			t.Fatalf("round %d: changed by node 0: %t, by node 1: %t; want one of them", round, ended[0].Changed, ended[1].Changed)
		}
		if a, b := ended[0].Session.End, ended[1].Session.End; a == nil || b == nil || *a != *b {
			t.Fatalf("round %d: the nodes tell of different ends: %+v, %+v", round, a, b)
		}
		var position int64
		entries, err := nodes[0].Feed().Read(t.Context(), 0, 10*rounds)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Kind == revoked.Session && e.ID == one.ID {
				if position != 0 {
					t.Fatalf("round %d: two entries of one end: %d and %d", round, position, e.Position)
				}
				position = e.Position
			}
		}
		if position == 0 {
			t.Fatalf("round %d: no entry of the end", round)
		}
		if keeping {
			kept := advanced.Revocation.Except == one.ID
			if kept != (advanced.Revocation.Position < position) {
				t.Fatalf("round %d: kept: %t, but the sign-out has position %d and the end %d", round, kept, advanced.Revocation.Position, position)
			}
			if kept {
				keptFirst++
			} else {
				endedFirst++
			}
		}
		for i, node := range nodes {
			snap, err := node.Sessions().Snapshot(t.Context(), one.ID)
			if err != nil || snap.Session.End == nil {
				t.Fatalf("round %d: at node %d it has not ended: %v", round, i, err)
			}
		}
	}
	t.Logf("kept before the end: %d, ended before: %d", keptFirst, endedFirst)
}
