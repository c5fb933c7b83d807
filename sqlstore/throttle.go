package sqlstore

import (
	"context"
	"slices"

	"github.com/counterfoil/counterfoil/directory"
)

// Throttle runs fn while it holds the counters: fn must be quick and must not
// call the store.
func (s users) Throttle(ctx context.Context, keys []string, fn func([]directory.Counter) error) error {
	var refused error
	err := s.engine.tx(ctx, func(on runner) error {
		refused = nil
		was, err := s.lockCounters(ctx, on, keys)
		if err != nil {
			return err
		}
		next := make([]directory.Counter, len(keys))
		for i, key := range keys {
			next[i] = was[key]
		}
		if refused = fn(next); refused != nil {
			return refused
		}
		for i, key := range keys {
			next[i].Key = key
			if next[i] == was[key] && s.dialect == sqlite {
				continue
			}
			if err := s.writeCounter(ctx, on, next[i]); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return failed("count attempts", err)
	}
	return nil
}

// lockCounters reads the counters. On PostgreSQL it makes and locks their
// rows, in the order of the keys, so that two calls do not wait for each other.
func (s users) lockCounters(ctx context.Context, on runner, keys []string) (map[string]directory.Counter, error) {
	query := `SELECT failures, not_before, expires_at FROM {throttle} WHERE key = $1`
	if s.dialect == postgresql {
		query = `INSERT INTO {throttle} AS c (key, failures, expires_at) VALUES ($1, 0, 0)
			ON CONFLICT (key) DO UPDATE SET failures = c.failures RETURNING failures, not_before, expires_at`
	}
	now, err := s.instant(ctx, on)
	if err != nil {
		return nil, err
	}
	counters := map[string]directory.Counter{}
	for _, key := range slices.Sorted(slices.Values(keys)) {
		c := directory.Counter{Key: key}
		_, err := one(ctx, on, func(r *row) {
			c.Failures, c.NotBefore, c.ExpiresAt = int(r.int()), r.time(), r.time()
		}, query, key)
		if err != nil {
			return nil, err
		}
		if !now.Before(c.ExpiresAt) {
			c = directory.Counter{Key: key}
		}
		counters[key] = c
	}
	return counters, nil
}

func (s users) writeCounter(ctx context.Context, on runner, c directory.Counter) error {
	if c == (directory.Counter{Key: c.Key}) {
		_, err := on.exec(ctx, `DELETE FROM {throttle} WHERE key = $1`, c.Key)
		return err
	}
	_, err := on.exec(ctx, `INSERT INTO {throttle} (key, failures, not_before, expires_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE SET failures = excluded.failures, not_before = excluded.not_before, expires_at = excluded.expires_at`,
		c.Key, c.Failures, millisOrNull(c.NotBefore), c.ExpiresAt.UnixMilli())
	return err
}
