package sqlstore

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	pollEvery = 10 * time.Millisecond
	pollPage  = 1000
	// pollTimeout ends a read over a connection that is gone.
	pollTimeout = 5 * time.Second
)

// tail is a [counterfoil.Tail] that asks the database again and again.
//
// On SQLite positions are drawn under the write lock, so they are committed in
// order and what lies above the last one is all that is new. On PostgreSQL a
// lower position may be committed after a higher one: there each read covers
// all that is retained, and seen keeps what was returned.
type tail struct {
	feed  feed
	after int64
	seen  map[int64]bool
	next  time.Time
	bell  chan struct{} // holds one ring
}

func (f feed) Tail(_ context.Context, after int64) (counterfoil.Tail, error) {
	return &tail{feed: f, after: after, seen: map[int64]bool{}, bell: make(chan struct{}, 1)}, nil
}

func (t *tail) Next(ctx context.Context) (batch counterfoil.FeedBatch, err error) {
	if err := t.wait(ctx); err != nil {
		return batch, err
	}
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	at := time.Now()
	t.next = at.Add(pollEvery)
	from, seen := t.after, make(map[int64]bool)
	for {
		page, err := t.feed.Read(ctx, from, pollPage)
		if err != nil {
			return counterfoil.FeedBatch{}, err
		}
		for _, e := range page {
			from = e.Position
			seen[from] = true
			if !t.seen[from] {
				batch.Entries = append(batch.Entries, e)
			}
		}
		if len(page) < pollPage {
			break
		}
	}
	if t.feed.dialect == sqlite {
		t.after = from
	} else {
		t.seen = seen
	}
	err = t.feed.engine.view(ctx, func(on runner) error {
		_, err := one(ctx, on, func(r *row) { batch.Timeline, batch.KeyVersion = r.int(), r.int() }, `SELECT timeline, key_version FROM {meta}`)
		return err
	})
	if err != nil {
		return counterfoil.FeedBatch{}, failed("read the feed log", err)
	}
	batch.Resolved, batch.ReadAt = t.after, at
	return batch, nil
}

func (t *tail) wait(ctx context.Context) error {
	timer := time.NewTimer(time.Until(t.next))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.bell:
	case <-timer.C:
	}
	return nil
}

func (t *tail) Wake() {
	select {
	case t.bell <- struct{}{}:
	default:
	}
}

func (*tail) Close() error { return nil }
