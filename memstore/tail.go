package memstore

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
)

// tail is a [counterfoil.Tail]. Nothing changes the store unseen, so it waits
// for the bell alone: an idle program sets no timers.
type tail struct {
	feed    feed
	after   int64
	started bool
	bell    chan struct{} // holds one ring
}

func (f feed) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := &tail{feed: f, after: after, bell: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tails[t] = struct{}{}
	return t, nil
}

func (t *tail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	if t.started {
		select {
		case <-ctx.Done():
			return counterfoil.FeedBatch{}, ctx.Err()
		case <-t.bell:
		}
	}
	if err := ctx.Err(); err != nil {
		return counterfoil.FeedBatch{}, err
	}
	t.started = true
	batch := counterfoil.FeedBatch{ReadAt: time.Now(), Timeline: timeline}
	t.feed.mu.Lock()
	defer t.feed.mu.Unlock()
	batch.Entries = t.feed.above(t.after, len(t.feed.log))
	batch.Resolved, batch.KeyVersion = t.feed.position, t.feed.ring.Version
	batch.Retain = t.feed.retain
	t.after = t.feed.position
	return batch, nil
}

func (t *tail) Wake() {
	select {
	case t.bell <- struct{}{}:
	default:
	}
}

func (t *tail) Close() error {
	t.feed.mu.Lock()
	defer t.feed.mu.Unlock()
	delete(t.feed.tails, t)
	return nil
}

// wakeTails is called with the lock held, when log or key ring have changed.
func (s *Store) wakeTails() {
	for t := range s.tails {
		t.Wake()
	}
}
