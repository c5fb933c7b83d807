package redisstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	// freshWithin is how old the last whole read of the log may be for a
	// session to be read: what another node revoked is known by then.
	freshWithin = 2 * time.Second
	// readAfter is when the log is read for a call, where nobody follows it.
	readAfter = time.Second
	// remember is how long entries are held against what Redis says, at least.
	remember = 10 * time.Minute
)

// follow keeps what the feed log in SQL said, from the tails that others read.
type follow struct {
	log   counterfoil.FeedLog
	table *revoked.Table
	clock func() time.Time

	keyVersion atomic.Int64
	readAt     atomic.Pointer[time.Time]

	mu       sync.Mutex // of who reads for itself
	resolved atomic.Int64
	timeline atomic.Int64
}

func newFollow(log counterfoil.FeedLog, clock func() time.Time) *follow {
	if clock == nil {
		clock = time.Now
	}
	return &follow{log: log, table: revoked.NewTable(clock), clock: clock}
}

// age is how long ago the log was known to be read whole. The monotonic clock
// stands still while a machine is suspended, so the greater of two counts.
func (f *follow) age() time.Duration {
	at := f.readAt.Load()
	if at == nil {
		return time.Hour
	}
	now := time.Now()
	return max(now.Sub(*at), now.Round(0).Sub(at.Round(0)))
}

// fresh sees to it that the log was read lately.
func (f *follow) fresh(ctx context.Context) error {
	if f.age() < readAfter {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.age() < readAfter {
		return nil
	}
	err := f.readWhole(ctx)
	if err != nil && f.age() >= freshWithin {
		return fmt.Errorf("%w: the feed log cannot be read: %w", counterfoil.ErrStoreUnavailable, err)
	}
	return nil
}

func (f *follow) readWhole(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	from := f.resolved.Load()
	tail, err := f.log.Tail(ctx, from)
	if err != nil {
		return err
	}
	defer func() { _ = tail.Close() }() // it was for reading
	for {
		batch, err := tail.Next(ctx)
		if err != nil {
			return err
		}
		if f.note(&batch); !batch.ReadAt.IsZero() {
			return nil
		}
	}
}

// note takes what a tail found that began no later than this one ended.
func (f *follow) note(batch *counterfoil.FeedBatch) {
	if len(batch.Entries) > 0 {
		least := f.clock().Add(remember)
		entries := make([]counterfoil.Revocation, len(batch.Entries))
		copy(entries, batch.Entries)
		for i := range entries {
			if e := &entries[i]; !e.Until.IsZero() && e.Until.Before(least) {
				e.Until = least
			}
		}
		f.table.Apply(entries...)
	}
	f.noteKeys(batch.KeyVersion)
	if known := f.timeline.Swap(batch.Timeline); known != batch.Timeline {
		f.resolved.Store(batch.Resolved)
	}
	raise(&f.resolved, batch.Resolved)
	if !batch.ReadAt.IsZero() {
		if at := f.readAt.Load(); at == nil || at.Before(batch.ReadAt) {
			f.readAt.Store(&batch.ReadAt)
		}
	}
}

func (f *follow) noteKeys(version int64) { raise(&f.keyVersion, version) }

func raise(v *atomic.Int64, to int64) {
	for {
		is := v.Load()
		if is >= to || v.CompareAndSwap(is, to) {
			return
		}
	}
}

// agrees says that the log knows nothing against a session that lives.
func (f *follow) agrees(snap *counterfoil.Snapshot) bool {
	if snap.Session.End != nil {
		return true
	}
	// By the subject's epoch, not the session's: where the copy is as new as the
	// log, it ended the sessions itself.
	return f.table.Check(revoked.Query{SessionID: snap.Session.ID, Subject: snap.Subject.ID, Epoch: snap.Subject.Epoch}) == revoked.None
}

// feed is the log, followed.
type feed struct {
	counterfoil.FeedLog
	follow *follow
}

func (f feed) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	joins := after <= f.follow.resolved.Load()
	t, err := f.FeedLog.Tail(ctx, after)
	if err != nil {
		return nil, err
	}
	return tail{t, f.follow, joins}, nil
}

type tail struct {
	counterfoil.Tail
	follow *follow
	joins  bool // it began where this store had read to
}

func (t tail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	batch, err := t.Tail.Next(ctx)
	if err == nil && t.joins {
		t.follow.note(&batch)
	}
	return batch, err
}

// catalog is SQL's, with an ear for new keys.
type catalog struct {
	counterfoil.Catalog
	follow *follow
}

func (c catalog) Keys(ctx context.Context) (counterfoil.KeyRing, error) {
	ring, err := c.Catalog.Keys(ctx)
	if err == nil {
		c.follow.noteKeys(ring.Version)
	}
	return ring, err
}

func (c catalog) UpdateKeys(ctx context.Context, retain time.Duration, fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	ring, revocations, err := c.Catalog.UpdateKeys(ctx, retain, fn)
	if err == nil {
		c.follow.noteKeys(ring.Version)
	}
	return ring, revocations, err
}
