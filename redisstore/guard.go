package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil/sqlstore"
)

// guardEvery is how often servers are asked who they are, beside each time
// that a connection is made.
const guardEvery = 500 * time.Millisecond

// replayMargin is how much further back than the mark in the data the journal
// is told again: the clock of SQL may have changed with its server.
const replayMargin = 10 * time.Second

// guard finds out when a server of Redis is not the one it was, or not with
// the data it had, before anything is believed that it says.
type guard struct {
	suspected atomic.Uint64 // grows with each reason to ask
	cleared   atomic.Uint64 // the reasons that were looked into
	repaired  atomic.Uint64 // grows when data were mended
	unmarked  atomic.Bool   // a shard's mark is of another data set than its server's

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
	same := g.same(now)
	if unmarked := g.unmarked.Swap(false); unmarked || !same {
		if err := s.verify(ctx, same); err != nil {
			g.unmarked.CompareAndSwap(false, unmarked)
			return err
		}
		g.known.Store(&now)
		g.repaired.Add(1)
	}
	g.cleared.Store(reasons)
	return nil
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
	if !g.same(now) {
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

// doubt is a shard whose data are not those that were known to be whole.
type doubt struct {
	data  string // the data set that it is in now
	since time.Time
}

// verify asks every shard whether it is in the data set that was last known
// to be whole, and tells those again that are not what they may have lost. With
// moved the servers are the same, and a shard may have come from another one of
// them (resharding): one without a mark is left alone, it may be under way.
func (s *Store) verify(ctx context.Context, moved bool) error {
	var mu sync.Mutex
	doubts := map[shard]doubt{}
	now, err := s.sql.Now(ctx)
	if err != nil {
		return err
	}
	err = s.eachShard(ctx, func(at shard) error {
		list, err := s.read(ctx, verifyScript, at)
		if err != nil {
			return err
		}
		words, err := words(list, 3)
		if err != nil {
			return err
		}
		if moved && (words[0] == "empty" || words[2] == "") {
			return nil
		}
		switch words[0] {
		case "empty":
			return s.mark(ctx, at, words[1], now)
		case "other":
			ms, err := strconv.ParseInt(words[2], 10, 64)
			if err != nil {
				return unavailable(fmt.Errorf("shard %s: %w", at, ErrRestored))
			}
			mu.Lock()
			doubts[at] = doubt{words[1], fromMillis(ms)}
			mu.Unlock()
		}
		return nil
	})
	if err != nil || len(doubts) == 0 {
		return err
	}
	return s.replay(ctx, doubts, now)
}

// replay tells the shards what the journal told since their marks.
func (s *Store) replay(ctx context.Context, doubts map[shard]doubt, now time.Time) error {
	from, err := s.journal.From(ctx)
	if err != nil {
		return err
	}
	oldest := now
	for at, d := range doubts {
		since := d.since.Add(-replayMargin)
		if d.since.Before(from) { // the journal reaches back further than that by the margin
			s.log.Error("Redis holds data from before the journal begins", "shard", string(at), "data", d.since, "journal", from)
			return unavailable(fmt.Errorf("shard %s: data of %s: %w", at, d.since.Format(time.RFC3339), ErrRestored))
		}
		if since.Before(oldest) {
			oldest = since
		}
	}
	const page = 1000
	told := 0
	for after := int64(0); ; {
		facts, err := s.journal.Since(ctx, oldest, after, page)
		if err != nil {
			return err
		}
		mine := make([]sqlstore.Fact, 0, len(facts))
		for _, f := range facts {
			if _, ok := doubts[shardOfFact(&f)]; ok {
				mine = append(mine, f)
			}
		}
		if err := s.tell(ctx, mine); err != nil {
			return err
		}
		told += len(mine)
		if len(facts) < page {
			break
		}
		after = facts[len(facts)-1].No
	}
	s.log.Warn("Redis changed servers or went back in time: told it again what it may have lost", "shards", len(doubts), "facts", told, "since", oldest)
	return s.eachShard(ctx, func(at shard) error {
		d, ok := doubts[at]
		if !ok {
			return nil
		}
		return s.mark(ctx, at, d.data, now)
	})
}

func shardOfFact(f *sqlstore.Fact) shard {
	if f.End != nil {
		return shard(f.Ref[:min(2, len(f.Ref))])
	}
	return shardOf(f.Ref)
}

// mark notes that a shard of the data set is whole.
func (s *Store) mark(ctx context.Context, at shard, data string, now time.Time) error {
	list, err := s.read(ctx, markScript, at, data, decimal(now.UnixMilli()))
	if err != nil {
		return err
	}
	if n, err := list[0].AsInt64(); err != nil || n != 1 {
		return unavailable(errors.New("the servers of redis are changing"))
	}
	return nil
}

// eachShard runs fn for all shards, some at a time, until one fails.
func (s *Store) eachShard(ctx context.Context, fn func(shard) error) error {
	const lanes = 16
	work := make(chan shard)
	failures := make(chan error, lanes)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var done sync.WaitGroup
	for range lanes {
		done.Go(func() {
			for at := range work {
				if err := fn(at); err != nil {
					failures <- err
					cancel()
					return
				}
			}
		})
	}
feeding:
	for _, at := range allShards() {
		select {
		case work <- at:
		case <-ctx.Done():
			break feeding
		}
	}
	close(work)
	done.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	return context.Cause(ctx)
}

// words reads an answer of so many texts.
func words(list []rueidis.RedisMessage, n int) ([]string, error) {
	if len(list) != n {
		return nil, errShape
	}
	out := make([]string, n)
	for i, m := range list {
		word, err := m.ToString()
		if err != nil {
			return nil, err
		}
		out[i] = word
	}
	return out, nil
}
