package engine

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// settleWithin bounds how long nodes may take to know of each other's changes.
const settleWithin = 10 * time.Second

// Settle waits until every node has read what the log holds now, and has the
// newest keys that one of them has: what one node has answered, another knows
// only after its next read. With one node it does nothing.
func Settle(t testing.TB, store counterfoil.Store, nodes ...*counterfoil.Authority) {
	t.Helper()
	if len(nodes) < 2 {
		return
	}
	head, err := store.Feed().Head(context.Background())
	if err != nil {
		return // the store is away, which is the test's business
	}
	var keys int64
	for _, node := range nodes {
		keys = max(keys, node.Stats().KeyVersion)
	}
	deadline := time.Now().Add(settleWithin)
	for _, node := range nodes {
		for now := node.Stats(); now.FeedPosition < head.Position || now.KeyVersion < keys; now = node.Stats() {
			if time.Now().After(deadline) {
				t.Errorf("a node is at %d of the log and version %d of the keys, the others at %d and %d", now.FeedPosition, now.KeyVersion, head.Position, keys)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// Front gives each request to the node after the one that got the last, as a
// proxy without sticky sessions does. settle is called before and after each.
func Front(settle func(), handlers ...http.Handler) http.Handler {
	if len(handlers) == 1 {
		return handlers[0]
	}
	turns := InTurn(handlers...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		settle()
		turns.Next().ServeHTTP(w, r)
		settle()
	})
}
