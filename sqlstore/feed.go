package sqlstore

import (
	"context"
	"errors"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// feed is counterfoil.FeedLog.
type feed struct{ *Store }

var _ counterfoil.FeedLog = feed{}

// Columns of an entry, in the order that readRevocation takes them.
const feedColumns = `id, kind, ref, stale_below, revoked_below, except_sid, until`

func readRevocation(r *row) (e counterfoil.Revocation) {
	e.Position = r.int()
	if kind := r.text(); len(kind) == 1 {
		e.Kind = revoked.Kind(kind[0])
	}
	e.ID, e.StaleBelow, e.RevokedBelow, e.Except, e.Until = r.text(), r.int(), r.int(), r.text(), r.time()
	return e
}

// Read returns what is committed. On PostgreSQL a lower position may still
// appear after a higher one.
func (f feed) Read(ctx context.Context, after int64, limit int) (entries []counterfoil.Revocation, err error) {
	if limit < 1 {
		return nil, failed("read the feed log", errors.New("limit must be at least 1"))
	}
	err = f.engine.view(ctx, func(on runner) error {
		entries = nil
		return each(ctx, on, func(r *row) error {
			entries = append(entries, readRevocation(r))
			return nil
		}, `SELECT `+feedColumns+` FROM {feed} WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	})
	if err != nil {
		return nil, failed("read the feed log", err)
	}
	return entries, nil
}

func (f feed) Head(ctx context.Context) (head counterfoil.FeedHead, err error) {
	err = f.engine.view(ctx, func(on runner) error {
		found, err := one(ctx, on, func(r *row) { head.Timeline, head.Position = r.int(), r.int() }, `SELECT timeline, {floor} FROM {meta}`)
		if err == nil && !found {
			err = f.noMeta(ctx, on)
		}
		return err
	})
	if err != nil {
		return counterfoil.FeedHead{}, failed("read the head of the feed log", err)
	}
	return head, nil
}
