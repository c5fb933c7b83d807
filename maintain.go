package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	touchFlushEvery = time.Second
	sweepEvery      = time.Minute
	// sweepChunk is small, so that a sweep never holds the store's writer
	// for longer than a few milliseconds.
	sweepChunk = 200
	// pruneLate is how much longer than its retention an entry stays in the
	// log. That is counted from the statement that wrote it: a transaction
	// that commits later than its statement still shows the entry to each
	// tail, unless it stays open for longer than retention and this.
	pruneLate     = time.Minute
	closeDeadline = 5 * time.Second
)

// maintain is the one background goroutine of an Authority.
func (a *Authority) maintain(ctx context.Context) {
	flush := time.NewTicker(touchFlushEvery)
	sweep := time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeDeadline)
			a.report("write last use of sessions", a.touches.flush(last))
			a.report("write last use of API keys", a.recordAPIKeyUse(last))
			cancel()
			return
		case <-flush.C:
			a.report("write last use of sessions", a.touches.flush(ctx))
		case <-sweep.C:
			a.report("write last use of API keys", a.recordAPIKeyUse(ctx))
			a.report("read signing keys", a.loadKeys(ctx))
			_, err := a.Sweep(ctx)
			a.report("sweep", err)
		}
	}
}

func (a *Authority) report(doing string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		a.counters.storeErrors.Add(1)
		a.log.Warn("counterfoil: "+doing+" failed, will be tried again", "error", err)
	}
}

// Sweep deletes what is past its retention, in small batches: sessions that
// ended or expired longer than [Config.Retention] ago, and feed entries that
// no living token needs. It runs by itself every minute and returns how many
// sessions it deleted.
func (a *Authority) Sweep(ctx context.Context) (sessions int, err error) {
	defer func() { a.counters.sweeps.count(err) }()
	now := a.now()
	sessions, err = inChunks(ctx, func() (int, error) {
		return a.sessions.Purge(ctx, now.Add(-a.cfg.Retention), sweepChunk)
	})
	a.counters.sessionsPurged.Add(uint64(sessions))
	if err != nil {
		return sessions, fmt.Errorf("purge sessions: %w", err)
	}
	entries, err := inChunks(ctx, func() (int, error) {
		return a.store.Feed().Prune(ctx, now.Add(-pruneLate), sweepChunk)
	})
	a.counters.entriesPruned.Add(uint64(entries))
	if err != nil {
		return sessions, fmt.Errorf("prune feed log: %w", err)
	}
	return sessions, nil
}

func inChunks(ctx context.Context, chunk func() (int, error)) (total int, err error) {
	for {
		n, err := chunk()
		total += n
		if err != nil || n < sweepChunk {
			return total, err
		}
		if err := ctx.Err(); err != nil {
			return total, err
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
