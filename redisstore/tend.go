package redisstore

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	noteEvery   = 250 * time.Millisecond // what was told is noted in SQL
	retellEvery = 5 * time.Second        // what others left untold, or undone
	markEvery   = 10 * time.Second       // each shard's mark moves on
	forgetEvery = time.Minute
)

// tend does what has to be done now and then, until ctx ends.
func (s *Store) tend(ctx context.Context) {
	s.done.Go(func() {
		s.every(ctx, guardEvery, "look at the servers", func(ctx context.Context) error { return s.guard.look(ctx, s) })
	})
	s.done.Go(func() { s.every(ctx, retellEvery, "tell what others left untold", newRepeater(s).repeat) })
	s.done.Go(func() { s.every(ctx, markEvery, "mark the data as whole", s.moveMarks) })
	s.done.Go(func() {
		s.every(ctx, forgetEvery, "prune the journal", func(ctx context.Context) error { return s.journal.Forget(ctx, s.keep) })
	})
	s.every(ctx, noteEvery, "note what was told", s.noteTold)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := s.noteTold(last); err != nil {
		s.log.Debug("what was told is not noted, and will be told again", "error", err)
	}
}

// every runs fn again and again. Its errors are logged once in a while.
func (s *Store) every(ctx context.Context, period time.Duration, what string, fn func(context.Context) error) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	var complained time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := fn(ctx); err != nil && ctx.Err() == nil && time.Since(complained) > time.Minute {
			complained = time.Now()
			s.log.Error("redisstore: cannot "+what, "error", err)
		}
	}
}

// repeater tells facts that were untold already at the last look: a call that
// is under way tells its own.
type repeater struct {
	s    *Store
	seen map[int64]bool
}

func newRepeater(s *Store) *repeater { return &repeater{s: s} }

func (r *repeater) repeat(ctx context.Context) error {
	facts, err := r.s.journal.Untold(ctx, 0, 1000)
	if err != nil {
		return err
	}
	now := make(map[int64]bool, len(facts))
	late := facts[:0]
	for _, f := range facts {
		if now[f.No] = true; r.seen[f.No] {
			late = append(late, f)
		}
	}
	r.seen = now
	if err := r.s.tellOrHold(ctx, late); err != nil {
		return err
	}
	if since := r.s.guard.again.Load(); since != nil {
		if err := r.s.tellSince(ctx, *since); err != nil {
			return err
		}
		r.s.guard.again.CompareAndSwap(since, nil)
	}
	return r.s.eachShard(ctx, allShards(), func(at shard) error { return r.s.outdateLate(ctx, at) })
}

// outdateLate raises the epochs of subjects for changes of sessions whose
// node died before it could.
func (s *Store) outdateLate(ctx context.Context, at shard) error {
	now, err := s.client.Do(ctx, s.client.B().Zrange().Key(s.base(at)+"p").Min("-inf").Max(decimal(time.Now().Add(-retellEvery).Unix())).
		Byscore().Build()).AsStrSlice()
	if err != nil {
		return unavailable(err)
	}
	for _, pending := range now {
		rest, _, _ := strings.Cut(pending, ":")
		own, err := s.own(ctx, string(at)+rest)
		if err == nil {
			_, err = s.outdate(ctx, at, own.Subject, pending, cascadeRetain)
		} else if errors.Is(err, counterfoil.ErrNotFound) {
			err = s.client.Do(ctx, s.client.B().Zrem().Key(s.base(at)+"p").Member(pending).Build()).Error()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveMarks notes in each shard up to when its data are whole. What was told
// until now is in them, since all of it was told before this.
func (s *Store) moveMarks(ctx context.Context) error {
	if err := s.guard.pass(ctx, s); err != nil {
		return err
	}
	now, err := s.sql.Now(ctx)
	if err != nil {
		return err
	}
	return s.eachShard(ctx, allShards(), func(at shard) error {
		list, err := s.read(ctx, markScript, at, "", decimal(now.UnixMilli()))
		if errors.Is(err, errMoving) {
			return nil
		}
		if err != nil {
			return err
		}
		if n, err := list[0].AsInt64(); err != nil || n != 1 {
			s.guard.unmarked.Store(true)
			s.guard.suspect()
		}
		return nil
	})
}
