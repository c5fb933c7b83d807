package sqlstore

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
)

// settling is for transactions of PostgreSQL that looked at the least retention
// before it was raised, and write an entry later. SQLite has one writer.
const settling = time.Minute

func (f feed) Record(ctx context.Context, e counterfoil.Revocation, retain time.Duration) (counterfoil.Revocation, error) {
	err := f.engine.tx(ctx, func(on runner) error {
		if f.dialect == postgresql {
			// The transaction's number comes before its position: readers count on that.
			if _, err := on.exec(ctx, `SELECT txid_current()`); err != nil {
				return err
			}
		}
		return f.report(ctx, on, &e, retain)
	})
	if err != nil {
		return counterfoil.Revocation{}, failed("record a revocation", err)
	}
	return e, nil
}

func (f feed) Retain(ctx context.Context, d time.Duration) (unsettled time.Duration, err error) {
	if f.dialect == sqlite {
		err = f.retainSQLite(ctx, d)
	} else {
		unsettled, err = f.retainPostgreSQL(ctx, d)
	}
	if err != nil {
		return 0, failed("record the retention of the feed log", err)
	}
	return unsettled, nil
}

func (f feed) retainSQLite(ctx context.Context, d time.Duration) error {
	var recorded time.Duration
	err := f.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { recorded = r.millis() }, `SELECT retain_ms FROM {meta}`)
		return err
	})
	if err != nil || recorded >= d {
		return err
	}
	return f.engine.once(ctx, func(on runner) error {
		_, err := on.exec(ctx, `UPDATE {meta} SET retain_ms = $1 WHERE retain_ms < $1`, d.Milliseconds())
		return err
	})
}

func (f feed) retainPostgreSQL(ctx context.Context, d time.Duration) (unsettled time.Duration, err error) {
	err = f.engine.once(ctx, func(on runner) error {
		_, err := on.exec(ctx, `UPDATE {meta} SET retain_ms = $2, retain_raised_at = {now} WHERE retain_ms < $2`, f.clockArgument(), d.Milliseconds())
		return err
	})
	if err != nil {
		return 0, err
	}
	err = f.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) {
			raised := r.time()
			unsettled = min(max(0, raised.Add(settling).Sub(f.clockOr(r))), settling)
		}, `SELECT retain_raised_at, {clock} FROM {meta}`)
		return err
	})
	return unsettled, err
}
