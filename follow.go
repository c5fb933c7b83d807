package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

const (
	// readApart is the least time between two reads of the log: under load
	// one read finds what several commits have written.
	readApart = 2 * time.Millisecond
	// readAge is how old the last read of the log is at most where stores poll.
	readAge = 10 * time.Millisecond
	// keysTimeout bounds how long a slow key ring holds revocations up.
	keysTimeout = time.Second
	// The log is tried again after this, doubled up to the second.
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
	// complainEvery keeps a store that is down from filling the log.
	complainEvery = time.Minute
)

// follower reads the feed log as it grows, puts its entries in force in this
// process, and hands them to those who follow from outside.
type follower struct {
	a      *Authority
	server *feed.Server
	tail   atomic.Pointer[Tail] // nil between two
	readAt atomic.Pointer[time.Time]

	// For the one goroutine that reads.
	history    history // but for its err
	resolved   int64
	keysTried  int64 // the version for which the ring was read last
	keysAt     time.Time
	complained time.Time
}

func newFollower(a *Authority) *follower {
	f := &follower{a: a, history: history{a: a}}
	f.server = feed.NewServer(feed.ServerConfig{
		Node: opaque.RandomText(), Retain: a.retain(),
		KeyVersion: func() int64 { return a.keys.Load().version },
		Snapshot:   a.revocations.Snapshot,
		Wake:       f.wake,
	})
	return f
}

// wake has the log read at once. It only makes the wait shorter: what was
// committed is found without it, at the next poll.
func (f *follower) wake() {
	if tail := f.tail.Load(); tail != nil {
		(*tail).Wake()
	}
}

// start reads everything that the log retains.
func (f *follower) start(ctx context.Context) error {
	for {
		whole, err := f.step(ctx)
		if err != nil {
			return errors.Join(fmt.Errorf("read retained revocations: %w", err), f.close())
		}
		if whole {
			return nil
		}
	}
}

// run follows the log until ctx ends.
func (f *follower) run(ctx context.Context) {
	retry := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		_, err := f.step(ctx)
		if err == nil {
			retry = firstRetry
			pause(ctx, time.Until(began.Add(readApart)))
			continue
		}
		if ctx.Err() != nil {
			break
		}
		f.a.degraded.heard(err)
		f.complain("follow the feed log", errors.Join(err, f.close()))
		if errors.Is(err, ErrStoreMoved) {
			f.server.Close() // for good: who follows finds a server of the other database
		}
		pause(ctx, retry)
		retry = min(2*retry, lastRetry)
	}
	if err := f.close(); err != nil {
		f.complain("close the feed log", err)
	}
	f.server.Close()
}

func (f *follower) close() error {
	tail := f.tail.Swap(nil)
	if tail == nil {
		return nil
	}
	return (*tail).Close()
}

func (f *follower) open(ctx context.Context) (Tail, error) {
	if tail := f.tail.Load(); tail != nil {
		return *tail, nil
	}
	tail, err := f.a.store.Feed().Tail(ctx, f.resolved)
	if err != nil {
		return nil, err
	}
	f.tail.Store(&tail)
	return tail, nil
}

// step takes one batch of the log. whole says that it ended a read.
func (f *follower) step(ctx context.Context) (whole bool, err error) {
	tail, err := f.open(ctx)
	if err != nil {
		return false, err
	}
	batch, err := tail.Next(ctx)
	if err != nil {
		return false, err
	}
	again, err := f.history.take(&batch)
	if again || err != nil {
		// Another history: positions in the old one say nothing about what it
		// holds. It is read from its beginning.
		f.resolved = 0
		f.a.degraded.forget()
		return false, errors.Join(err, f.close())
	}
	f.resolved = batch.Resolved
	f.a.recorded.Store(int64(batch.Retain))
	f.loadKeys(ctx, batch.KeyVersion)
	entries := f.a.keepLongEnough(batch.Entries)
	f.a.revocations.Apply(entries...)
	f.server.Publish(feed.Position{Timeline: batch.Timeline, Seq: batch.Resolved}, entries, batch.ReadAt)
	if batch.ReadAt.IsZero() {
		return false, nil
	}
	f.readAt.Store(&batch.ReadAt)
	if lost := f.history.missing(); lost != nil {
		f.a.done.Go(func() { f.a.recordAgain(ctx, lost) })
	}
	return true, nil
}

// age is how long ago the read began that found all that was in the log. The
// monotonic clock stands still while a machine is suspended, so the greater of
// two differences counts.
func (f *follower) age() (time.Duration, bool) {
	at := f.readAt.Load()
	if at == nil {
		return 0, false
	}
	now := time.Now()
	age := max(now.Sub(*at), now.Round(0).Sub(at.Round(0)))
	if age > 2*readAge {
		f.wake() // a store that hears of every change is read when somebody asks only
	}
	return age, true
}

// loadKeys reads the key ring when the log tells of a newer one, before the
// entries of the same batch: where a key was revoked, the next one signs then.
func (f *follower) loadKeys(ctx context.Context, version int64) {
	if version <= f.a.keys.Load().version || version == f.keysTried && time.Since(f.keysAt) < lastRetry {
		return
	}
	f.keysTried, f.keysAt = version, time.Now()
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	if err := f.a.loadKeys(ctx); err != nil {
		f.complain("read signing keys", err)
	}
}

func (f *follower) complain(doing string, err error) {
	if errors.Is(err, context.Canceled) || time.Since(f.complained) < complainEvery {
		return
	}
	f.complained = time.Now()
	f.a.report(doing, err)
}

// keepLongEnough measures how long entries stay by this node's clock from now
// on. When they end is told by the clock of whoever wrote them, and where that
// is behind, an entry would leave while tokens live that it refuses.
func (a *Authority) keepLongEnough(entries []Revocation) []Revocation {
	least := a.now().Add(a.retain())
	for i := range entries {
		e := &entries[i]
		if e.Kind != revoked.Key && !e.Until.IsZero() && e.Until.Before(least) {
			e.Until = least
		}
	}
	return entries
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// ServeFeed sends the feed of revocations as server-sent events to a verifier
// in another process (GET /v1/revocations), until either side ends it. The
// caller has checked an API key with the scope [ScopeVerify].
func (a *Authority) ServeFeed(w http.ResponseWriter, r *http.Request) {
	a.follower.server.ServeHTTP(w, r)
}

// ServeFeedClock tells the clock by which the feed's beats are stamped (GET
// /v1/revocations/clock). A verifier may report its staleness with it, for [Stats].
func (a *Authority) ServeFeedClock(w http.ResponseWriter, r *http.Request) {
	a.counters.noteLag(r)
	a.follower.server.ServeClock(w, r)
}
