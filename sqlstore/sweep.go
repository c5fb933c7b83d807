package sqlstore

import (
	"context"
	"errors"
	"math"
	"time"
)

// chunk is how many rows one transaction deletes. SQLite has one writer, and
// each row costs it some 10 µs during which sign-ins wait.
func (s *Store) chunk() int {
	if s.dialect == sqlite {
		return 100
	}
	return 1000
}

// sweep runs fn with how many rows to delete until it deletes fewer or limit
// is reached.
func (s *Store) sweep(ctx context.Context, in engine, limit int, fn func(on runner, n int) (int64, error)) (int, error) {
	total := 0
	for total < limit {
		n := min(limit-total, s.chunk())
		var deleted int64
		err := in.sweep(ctx, func(on runner) (err error) {
			if deleted = 0; !s.turn(ctx, in, on, &err) {
				return err
			}
			deleted, err = fn(on, n)
			return err
		})
		total += int(deleted)
		if err != nil || int(deleted) < n {
			return total, err
		}
	}
	return total, nil
}

// turn lets one process sweep at a time: several would multiply the load, and
// compete for the same rows. Who finds another at it leaves it to that one,
// until its next sweep.
func (s *Store) turn(ctx context.Context, in engine, on runner, err *error) (mine bool) {
	if _, ok := in.(*pool); !ok {
		return true
	}
	_, *err = one(ctx, on, func(r *row) { mine = r.bool() }, `SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.{sweep}', 0))`)
	return mine
}

// past returns the store's clock, and before or that, whichever is earlier:
// what lives by the store's clock is never swept away.
func (s *Store) past(ctx context.Context, in engine, before time.Time, limit int) (_, now time.Time, err error) {
	if limit < 1 {
		return before, now, errors.New("limit must be at least 1")
	}
	err = in.view(ctx, func(on runner) (err error) {
		now, err = s.instant(ctx, on)
		return err
	})
	if now.Before(before) {
		before = now
	}
	return before, now, err
}

func (s *sessions) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	deleted, err := s.purge(ctx, before, limit)
	if err != nil {
		return deleted, failed("purge sessions", err)
	}
	return deleted, nil
}

func (s *sessions) purge(ctx context.Context, before time.Time, limit int) (int, error) {
	before, now, err := s.past(ctx, s.in, before, limit)
	if err != nil {
		return 0, err
	}
	// The limit is for sessions. Of these, which strangers make, all that are
	// past go: a share of them would let them grow without bound.
	_, err = s.sweep(ctx, s.in, math.MaxInt, func(on runner, n int) (int64, error) {
		return on.exec(ctx, `WITH past AS MATERIALIZED (SELECT key FROM {throttle} WHERE expires_at <= $1 LIMIT $2{skip})
			DELETE FROM {throttle} WHERE key IN (SELECT key FROM past)`, now.UnixMilli(), n)
	})
	if err != nil {
		return 0, err
	}
	_, err = s.sweep(ctx, s.in, math.MaxInt, func(on runner, n int) (int64, error) {
		return on.exec(ctx, `WITH past AS MATERIALIZED (SELECT challenge FROM {ceremonies} WHERE expires_at <= $1 LIMIT $2{skip})
			DELETE FROM {ceremonies} WHERE challenge IN (SELECT challenge FROM past)`, now.UnixMilli(), n)
	})
	if err != nil {
		return 0, err
	}
	deleted, err := s.sweep(ctx, s.in, limit, func(on runner, n int) (int64, error) {
		return on.exec(ctx, `WITH past AS MATERIALIZED (SELECT sid FROM {sessions} WHERE {dead} < $1 LIMIT $2{skip})
			DELETE FROM {sessions} WHERE sid IN (SELECT sid FROM past)`, before.UnixMilli(), n)
	})
	for done := false; err == nil && !done && deleted < limit; {
		var more int
		more, done, err = s.purgeSignedOut(ctx, before, limit-deleted)
		deleted += more
	}
	return deleted, err
}

// purgeSignedOut deletes sessions of one subject that ended only by the
// subject's sign-out; done says that there is none left to look at.
func (s *sessions) purgeSignedOut(ctx context.Context, before time.Time, limit int) (deleted int, done bool, err error) {
	var no, below, at int64
	err = s.in.view(ctx, func(on runner) error {
		found, err := one(ctx, on, func(r *row) { no, below, at = r.int(), r.int(), r.int() },
			`SELECT no, signed_out_below, sweep_at FROM {subjects} WHERE sweep_at < $1 ORDER BY sweep_at LIMIT 1`, before.UnixMilli())
		done = !found
		return err
	})
	if err != nil || done {
		return 0, done, err
	}
	deleted, err = s.sweep(ctx, s.in, limit, func(on runner, n int) (int64, error) {
		return on.exec(ctx, `WITH past AS MATERIALIZED (
				SELECT sid FROM {sessions} WHERE subject_no = $1 AND epoch0 < $2 AND ended_at IS NULL LIMIT $3{skip})
			DELETE FROM {sessions} WHERE sid IN (SELECT sid FROM past)`, no, below, n)
	})
	if err != nil || deleted == limit {
		return deleted, false, err
	}
	err = s.in.sweep(ctx, func(on runner) error {
		_, err := on.exec(ctx, `UPDATE {subjects} SET sweep_at = NULL WHERE no = $1 AND sweep_at = $2`, no, at)
		return err
	})
	return deleted, false, err
}

func (f feed) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	var deleted int
	before, _, err := f.past(ctx, f.engine, before, limit)
	if err == nil {
		deleted, err = f.sweep(ctx, f.engine, limit, func(on runner, n int) (int64, error) {
			return on.exec(ctx, `WITH past AS MATERIALIZED (SELECT id FROM {feed} WHERE kind <> 'k' AND until < $1 LIMIT $2{skip})
				DELETE FROM {feed} WHERE id IN (SELECT id FROM past)`, before.UnixMilli(), n)
		})
	}
	if err != nil {
		return deleted, failed("prune the feed log", err)
	}
	return deleted, nil
}
