package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// guardEvery is how often servers are asked who they are, beside each time
// that a connection is made.
const guardEvery = 500 * time.Millisecond

// replayMargin is how much further back than the mark in the data the journal
// is told again: the clock of SQL may have changed with its server.
const replayMargin = 10 * time.Second

// lookBack is how far back a node that meets a new master tells the journal
// again beside that, without anybody waiting for it: what it told to the former
// one, after another node had verified the new one. As long as the log is held
// against what Redis says.
const lookBack = remember

// guard finds out when a server of Redis is not the one it was, or not with
// the data it had, before anything is believed that it says.
type guard struct {
	suspected atomic.Uint64             // grows with each reason to ask
	cleared   atomic.Uint64             // the reasons that were looked into
	repaired  atomic.Uint64             // grows when data were mended
	unmarked  atomic.Bool               // a shard's mark is of another data set than its server's
	held      sync.Map                  // shards that could not be verified, or told, while they are moved
	again     atomic.Pointer[time.Time] // since when the journal is to be told again: see lookBack
	nameless  atomic.Bool               // at the start Redis had no name: it is new, or was emptied

	turn  chan struct{} // of who looks
	known atomic.Pointer[map[string]identity]
}

// identity is who a master is: run is new with each start, data with each
// start and each promotion.
type identity struct{ run, data string }

func (g *guard) init() {
	g.turn = make(chan struct{}, 1)
	g.known.Store(&map[string]identity{})
}

func (g *guard) suspect() { g.suspected.Add(1) }

func (g *guard) changes() uint64 { return g.repaired.Load() }

func (g *guard) identity(address string) (identity, bool) {
	id, ok := (*g.known.Load())[address]
	return id, ok
}

// pass returns once every reason for doubt was looked into that there was when
// it was called.
func (g *guard) pass(ctx context.Context, s *Store) error {
	if g.cleared.Load() >= g.suspected.Load() {
		return nil
	}
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return unavailable(fmt.Errorf("its servers are being looked into: %w", context.Cause(ctx)))
	}
	reasons := g.suspected.Load()
	if g.cleared.Load() >= reasons {
		return nil
	}
	now, err := s.identities(ctx)
	if err != nil {
		return err
	}
	same, held := g.same(now), g.heldShards()
	if unmarked := g.unmarked.Swap(false); unmarked || !same {
		if err := s.verify(ctx, allShards(), same); err != nil {
			g.unmarked.CompareAndSwap(false, unmarked)
			return err
		}
		if !same && len(*g.known.Load()) > 0 {
			since := time.Now().Add(-lookBack)
			g.again.CompareAndSwap(nil, &since)
		}
		g.known.Store(&now)
		g.nameless.Store(false)
		g.repaired.Add(1)
	}
	if len(held) > 0 {
		if err := s.release(ctx, held); err != nil {
			return err
		}
	}
	g.cleared.Store(reasons)
	return nil
}

// passFor is pass, and an error where one of the shards is held back.
func (g *guard) passFor(ctx context.Context, s *Store, shards ...shard) error {
	if err := g.pass(ctx, s); err != nil {
		return err
	}
	for _, at := range shards {
		if _, held := g.held.Load(at); held {
			return unavailable(errMoving)
		}
	}
	return nil
}

// hold keeps sessions of a shard from being read until [Store.release].
func (s *Store) hold(at shard) {
	if _, held := s.guard.held.Swap(at, true); !held {
		s.log.Warn("Redis moves sessions to another server: they wait until that is done", "shard", string(at))
	}
}

// moving says that a shard was being moved when it was looked at last.
func (g *guard) moving(at shard) bool {
	moving, held := g.held.Load(at)
	return held && moving.(bool)
}

func (g *guard) heldShards() (list []shard) {
	g.held.Range(func(at, _ any) bool {
		list = append(list, at.(shard))
		return true
	})
	return list
}

// passer is a step of Open: everything is looked into.
func (g *guard) passer(s *Store) func(context.Context) error {
	return func(ctx context.Context) error {
		g.suspect()
		return g.pass(ctx, s)
	}
}

func (g *guard) same(now map[string]identity) bool {
	known := *g.known.Load()
	for address, id := range now {
		if known[address] != id {
			return false
		}
	}
	return len(now) > 0
}

// look asks the servers though there is no reason.
func (g *guard) look(ctx context.Context, s *Store) error {
	now, err := s.identities(ctx)
	if err != nil {
		g.suspect()
		return err
	}
	if !g.same(now) || len(g.heldShards()) > 0 {
		g.suspect()
	}
	return g.pass(ctx, s)
}

var errNoMaster = errors.New("none of the servers is a master")

// identities asks all masters who they are. One of several that does not
// answer is left out: it is new when it is back.
func (s *Store) identities(ctx context.Context) (map[string]identity, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	type answer struct {
		address string
		text    string
		err     error
	}
	nodes := s.client.Nodes()
	answers := make(chan answer, len(nodes))
	for address, node := range nodes {
		go func() {
			text, err := node.Do(ctx, node.B().Info().Section("server", "replication").Build()).ToString()
			answers <- answer{address, text, err}
		}()
	}
	now := make(map[string]identity, len(nodes))
	var failure error
	for range nodes {
		a := <-answers
		if a.err != nil {
			failure = a.err
			continue
		}
		fields := infoFields(a.text)
		if fields["role"] == "master" {
			now[a.address] = identity{fields["run_id"], fields["master_replid"]}
		}
	}
	switch {
	case len(now) > 0:
		return now, nil
	case failure != nil:
		return nil, unavailable(failure)
	}
	return nil, unavailable(errNoMaster)
}

// infoFields reads the answer of INFO.
func infoFields(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}
