package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil/sqlstore"
)

// doubt is a shard whose data are not those that were known to be whole.
type doubt struct {
	data  string // the data set that it is in now
	since time.Time
}

// verdict is what the script says of a shard.
type verdict struct{ is, data, at string }

// verify asks shards whether they are in the data set that was last known to be
// whole, and tells those again that are not what they may have lost. Those that
// are being moved are held back. With known the servers are the ones they were,
// and a shard may have come from another one of them.
func (s *Store) verify(ctx context.Context, shards []shard, known bool) error {
	now, err := s.sql.Now(ctx)
	if err != nil {
		return err
	}
	verdicts, err := s.verdicts(ctx, shards)
	if err != nil {
		return err
	}
	from, err := s.emptied(ctx, verdicts)
	if err != nil {
		return err
	}
	doubts, unused := map[shard]doubt{}, []shard{}
	for at, v := range verdicts {
		switch {
		case v.is == "empty" && known && from.IsZero():
		case v.is == "empty":
			unused = append(unused, at)
		case v.is == "other" && v.at == "" && !from.IsZero():
			doubts[at] = doubt{v.data, from}
		case v.is == "other" && v.at == "" && known:
		case v.is == "other":
			ms, err := strconv.ParseInt(v.at, 10, 64)
			if err != nil {
				return unavailable(fmt.Errorf("shard %s: %w", at, ErrRestored))
			}
			doubts[at] = doubt{v.data, fromMillis(ms)}
		}
	}
	err = s.eachShard(ctx, unused, func(at shard) error { return s.mark(ctx, at, verdicts[at].data, now) })
	if err != nil || len(doubts) == 0 {
		return err
	}
	return s.replay(ctx, doubts, now)
}

// verdicts asks shards. Of one that is being moved there is none.
func (s *Store) verdicts(ctx context.Context, shards []shard) (map[shard]verdict, error) {
	var mu sync.Mutex
	verdicts := make(map[shard]verdict, len(shards))
	err := s.eachShard(ctx, shards, func(at shard) error {
		list, err := s.read(ctx, verifyScript, at)
		if errors.Is(err, errMoving) {
			s.hold(at)
			return nil
		}
		if err != nil {
			return err
		}
		words, err := words(list, 3)
		if err != nil {
			return err
		}
		mu.Lock()
		verdicts[at] = verdict{words[0], words[1], words[2]}
		mu.Unlock()
		return nil
	})
	return verdicts, err
}

// emptied finds out whether somebody has emptied Redis (FLUSHALL): no shard has
// a mark, and its name is gone. It gets its name again. Sessions that are there
// began after that: from is since when the journal is whole, so that they are
// told all that it knows. Zero where Redis was not emptied.
func (s *Store) emptied(ctx context.Context, verdicts map[shard]verdict) (from time.Time, err error) {
	if len(verdicts) < shards {
		return from, nil
	}
	for _, v := range verdicts {
		if v.is == "same" || v.is == "other" && v.at != "" {
			return from, nil
		}
	}
	there, err := s.homeName(ctx)
	if err != nil || there != "" && !s.guard.nameless.Load() {
		return from, err
	}
	home, err := s.journal.Home(ctx)
	if err != nil || home == "" {
		return from, err
	}
	if there, err = s.setHomeName(ctx, home); err == nil && there != home {
		err = ErrForeign
	}
	if err != nil {
		return from, err
	}
	return s.journal.From(ctx)
}

// release verifies shards that were held back, and tells what is left untold.
func (s *Store) release(ctx context.Context, held []shard) error {
	for _, at := range held {
		s.guard.held.Store(at, false) // until somebody holds it back again
	}
	if err := s.verify(ctx, held, false); err != nil {
		return err
	}
	if !slices.ContainsFunc(held, func(at shard) bool { return !s.guard.moving(at) }) {
		return nil
	}
	if err := s.retell(ctx); err != nil {
		return err
	}
	for _, at := range held {
		s.guard.held.CompareAndDelete(at, false)
	}
	s.guard.repaired.Add(1)
	return nil
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
	return s.eachShard(ctx, slices.Collect(maps.Keys(doubts)), func(at shard) error { return s.mark(ctx, at, doubts[at].data, now) })
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

// eachShard runs fn for shards, some at a time, until one fails.
func (s *Store) eachShard(ctx context.Context, list []shard, fn func(shard) error) error {
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
	for _, at := range list {
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
