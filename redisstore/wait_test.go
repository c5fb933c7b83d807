package redisstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/redisstore"
	"github.com/counterfoil/counterfoil/sqlstore"
)

// With Wait a change is on a replica before the call returns, and the call
// fails when there is none.
func TestWait(t *testing.T) {
	master, replica := redisServer(t), redisServer(t)
	if err := replica.ReplicaOf(t.Context(), master); err != nil {
		t.Fatal(err)
	}
	node := store(t, sqlstore.SQLite(tempDB(t)), master.URL, redisstore.Wait(1, 2*time.Second))
	var last counterfoil.Session
	for range 50 {
		last = signIn(t, node, "ann")
		if do(t, replica, "EXISTS", "cf:{"+last.ID[:2]+"}:s:"+last.ID[2:]) != "1" {
			t.Fatal("a sign-in returned before the replica had it")
		}
	}
	kill(t, replica)
	_, err := node.Sessions().End(t.Context(), counterfoil.EndRequest{ID: last.ID, End: counterfoil.End{Reason: counterfoil.Revoked}, Retain: retain})
	if !errors.Is(err, counterfoil.ErrNotTold) || !errors.Is(err, counterfoil.ErrStoreUnavailable) {
		t.Errorf("End without a replica: %v", err)
	}
	wantEnded(t, node, last.ID, "its end is committed")
}
