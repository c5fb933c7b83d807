package counterfoil

import (
	"context"
	"maps"
	"sync"
	"time"
)

// toucher coalesces the use of sessions: no refresh writes, and one session
// is written at most once an interval of a twentieth of its idle timeout
// (never more than five minutes).
type toucher struct {
	authority *Authority
	mu        sync.Mutex
	pending   map[string]time.Time
}

const (
	maxTouchInterval = 5 * time.Minute
	touchBatch       = 200
)

func newToucher(a *Authority) *toucher {
	return &toucher{authority: a, pending: make(map[string]time.Time)}
}

// use records that the user was active at the given time, and lets s show it.
func (t *toucher) use(s *Session, at time.Time) {
	if at.Sub(s.LastActiveAt) < min(s.IdleTimeout/20, maxTouchInterval) {
		return
	}
	s.LastActiveAt = at
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending[s.ID].Before(at) {
		t.pending[s.ID] = at
	}
}

// flush writes what waits. What a store refused waits on.
func (t *toucher) flush(ctx context.Context) error {
	t.mu.Lock()
	pending := t.pending
	t.pending = make(map[string]time.Time)
	t.mu.Unlock()

	batch := make([]Touch, 0, min(len(pending), touchBatch))
	write := func() error {
		if err := t.authority.sessions.Touch(ctx, batch); err != nil {
			return err
		}
		t.authority.counters.touches.Add(uint64(len(batch)))
		for _, touch := range batch {
			delete(pending, touch.ID)
		}
		batch = batch[:0]
		return nil
	}
	for _, id := range sortedKeys(pending) {
		batch = append(batch, Touch{ID: id, At: pending[id]})
		if len(batch) == touchBatch {
			if err := write(); err != nil {
				t.putBack(pending)
				return err
			}
		}
	}
	if len(batch) > 0 {
		if err := write(); err != nil {
			t.putBack(pending)
			return err
		}
	}
	return nil
}

// waiting is how many sessions' last use was not written yet.
func (t *toucher) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending)
}

func (t *toucher) putBack(unwritten map[string]time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	newer := t.pending
	t.pending = unwritten
	maps.Copy(t.pending, newer)
}
