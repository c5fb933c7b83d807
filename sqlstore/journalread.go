package sqlstore

import (
	"context"
	"encoding/json"
	"math"
	"time"
)

// Untold returns at most limit facts above the number that nobody has noted
// as told, in order.
func (j *Journal) Untold(ctx context.Context, after int64, limit int) ([]Fact, error) {
	return j.facts(ctx, `told_at IS NULL AND no > $1 ORDER BY no LIMIT $2`, after, limit)
}

// About returns the facts about one session or subject.
func (j *Journal) About(ctx context.Context, ref string) ([]Fact, error) {
	return j.facts(ctx, `ref = $1 ORDER BY no`, ref)
}

// UntoldAbout returns those of them that nobody has noted as told.
func (j *Journal) UntoldAbout(ctx context.Context, ref string) ([]Fact, error) {
	return j.facts(ctx, `ref = $1 AND told_at IS NULL ORDER BY no`, ref)
}

// Since returns at most limit facts above the number that were told at the
// time or later, or not yet.
func (j *Journal) Since(ctx context.Context, at time.Time, after int64, limit int) ([]Fact, error) {
	return j.facts(ctx, `(told_at IS NULL OR told_at >= $1) AND no > $2 ORDER BY no LIMIT $3`, at.UnixMilli(), after, limit)
}

func (j *Journal) facts(ctx context.Context, where string, args ...any) (list []Fact, err error) {
	err = j.in.view(ctx, func(on runner) error {
		list = nil
		return each(ctx, on, func(r *row) error {
			f, err := readFact(r)
			list = append(list, f)
			return err
		}, `SELECT `+factColumns+` FROM {journal} WHERE `+where, args...)
	})
	if err != nil {
		return nil, failed("read the journal", err)
	}
	return list, nil
}

// Told notes that the store of the sessions knows the facts.
func (j *Journal) Told(ctx context.Context, nos []int64) error {
	list, err := json.Marshal(nos)
	if err != nil {
		return err
	}
	numbers := `SELECT value FROM json_each($2)`
	if j.dialect == postgresql {
		numbers = `SELECT json_array_elements_text($2::json)::bigint`
	}
	err = j.in.again(ctx, func(on runner) error {
		_, err := on.exec(ctx, `UPDATE {journal} SET told_at = {now} WHERE no IN (`+numbers+`) AND told_at IS NULL`, j.clockArgument(), string(list))
		return err
	})
	if err != nil {
		return failed("note what was told", err)
	}
	return nil
}

// From returns since when the journal is whole: what was told before may be gone.
func (j *Journal) From(ctx context.Context) (from time.Time, err error) {
	err = j.in.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { from = r.time() }, `SELECT journal_from FROM {meta}`)
		return err
	})
	if err != nil {
		return from, failed("read the journal", err)
	}
	return from, nil
}

// forgetMargin is for clocks that are not the same: the journal reaches back
// that much further than it says.
const forgetMargin = 10 * time.Second

// Forget deletes what was told longer ago than keep, and a little.
func (j *Journal) Forget(ctx context.Context, keep time.Duration) error {
	var before int64
	err := j.in.sweep(ctx, func(on runner) error {
		now, err := j.instant(ctx, on)
		if err != nil {
			return err
		}
		before = now.Add(-keep).UnixMilli()
		_, err = on.exec(ctx, `UPDATE {meta} SET journal_from = $1 WHERE journal_from < $1`, before)
		return err
	})
	if err == nil {
		_, err = j.sweep(ctx, j.in, math.MaxInt, func(on runner, n int) (int64, error) {
			return on.exec(ctx, `WITH past AS MATERIALIZED (SELECT no FROM {journal} WHERE told_at < $1 LIMIT $2{skip})
				DELETE FROM {journal} WHERE no IN (SELECT no FROM past)`, before-forgetMargin.Milliseconds(), n)
		})
	}
	if err != nil {
		return failed("prune the journal", err)
	}
	return nil
}
