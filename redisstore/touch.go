package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
)

func (s sessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	by := map[shard][]string{}
	for _, t := range touches {
		if at, rest, ok := split(t.ID); ok {
			by[at] = append(by[at], rest, decimal(t.At.UnixMilli()))
		}
	}
	const most = 2 * 200
	for at, args := range by {
		for ; len(args) > 0; args = args[min(most, len(args)):] {
			if _, err := s.read(ctx, touchScript, at, args[:min(most, len(args))]...); err != nil {
				return failed("touch sessions", err)
			}
		}
	}
	return nil
}

func (s sessions) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	deleted, err := s.purge(ctx, before, limit)
	if err != nil {
		return deleted, failed("purge sessions", err)
	}
	return deleted, nil
}

func (s sessions) purge(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	if limit < 1 {
		return 0, errors.New("limit must be at least 1")
	}
	// What was begun and never ended, in SQL; sessions are not there.
	if _, err := s.sql.Sessions().Purge(ctx, before, limit); err != nil {
		return 0, err
	}
	now, err := s.now(ctx)
	if err != nil {
		return 0, err
	}
	if now.Before(before) {
		before = now // what is active now stays, whatever the caller says
	}
	const most = 100 // for which all others wait
	for _, at := range allShards() {
		for deleted < limit {
			n := min(most, limit-deleted)
			list, err := s.read(ctx, purgeScript, at, decimal(before.UnixMilli()), decimal(int64(n)))
			if err != nil {
				return deleted, err
			}
			gone, err := texts(list)
			if err != nil || len(gone)%2 != 0 {
				return deleted, errors.Join(err, fmt.Errorf("purge: %w", errShape))
			}
			deleted += len(gone) / 2
			if err := s.orphan(ctx, at, gone); err != nil {
				return deleted, err
			}
			if len(gone)/2 < n {
				break
			}
		}
	}
	return deleted, nil
}

// orphan takes sessions that are gone from those derived from their parents.
func (s *Store) orphan(ctx context.Context, at shard, gone []string) error {
	for i := 0; i+1 < len(gone); i += 2 {
		id := string(at) + gone[i]
		own, err := readRecord(id, []byte(gone[i+1]))
		if err != nil || own.ParentID == "" {
			continue // not worth a failure: it is gone
		}
		in, parent, ok := split(own.ParentID)
		if !ok {
			continue
		}
		if err := s.client.Do(ctx, s.client.B().Srem().Key(s.base(in)+"c:"+parent).Member(id).Build()).Error(); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// now is the clock of sessions.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	if s.clock != nil {
		return fromMillis(s.clock().UnixMilli()), nil
	}
	parts, err := s.client.Do(ctx, s.client.B().Time().Build()).AsStrSlice()
	if err != nil || len(parts) != 2 {
		return time.Time{}, unavailable(errors.Join(err, errNoClock))
	}
	return clockOf(parts[0], parts[1])
}

var errNoClock = errors.New("its clock cannot be read")
