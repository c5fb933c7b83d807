package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// readWait is how long a read may take before the node counts as cut off.
	readWait = 2 * time.Second
	// cutWait is how long a read may take while it does: the store may have
	// lost some of its machines only, and what it answers is the truth.
	cutWait = 100 * time.Millisecond
	// cutReads bounds the reads that hang while the node is cut off.
	cutReads = 64
	// probeEvery is how often a store that is cut off is asked whether it is back.
	probeEvery = time.Second
)

// outage reads sessions, and knows whether the store answers. Once it has not,
// reads wait for a moment only, until a read in the background has been answered.
type outage struct {
	d     *degradedMinting
	cut   atomic.Bool
	reads atomic.Int64
	bell  chan struct{}

	mu    sync.Mutex
	began time.Time
	sid   string // whose read failed
	mints uint64 // before it began
}

func newOutage(d *degradedMinting) *outage { return &outage{d: d, bell: make(chan struct{}, 1)} }

func (o *outage) since() (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.began, o.cut.Load()
}

// read reads one session, and waits for so long only.
func (o *outage) read(ctx context.Context, sid string) (Snapshot, error) {
	wait := readWait
	if o.cut.Load() {
		if wait = cutWait; o.reads.Load() >= cutReads {
			return Snapshot{}, fmt.Errorf("%w: it has not answered for a while", ErrStoreUnavailable)
		}
	}
	snap, err := o.within(ctx, wait, sid)
	if err != nil && ctx.Err() == nil && unanswered(err) {
		o.begin(sid, err)
		if !errors.Is(err, ErrStoreUnavailable) {
			err = fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
		}
	}
	return snap, err
}

// within reads in a goroutine of its own: what hangs, a disk for instance, may
// not hear that nobody waits any more.
func (o *outage) within(ctx context.Context, wait time.Duration, sid string) (Snapshot, error) {
	type answer struct {
		snap Snapshot
		err  error
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	done := make(chan answer, 1)
	o.reads.Add(1)
	go func() {
		defer o.reads.Add(-1)
		defer func() {
			// This is no goroutine of net/http: a panic would end the process.
			if p := recover(); p != nil {
				done <- answer{err: fmt.Errorf("reading a session panicked: %v", p)}
			}
		}()
		snap, err := o.d.a.sessions.Snapshot(bounded, sid)
		done <- answer{snap, err}
	}()
	select {
	case a := <-done:
		return a.snap, a.err
	case <-bounded.Done():
		return Snapshot{}, fmt.Errorf("no answer within %s: %w", wait, bounded.Err())
	}
}

func (o *outage) begin(sid string, cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut.Load() {
		return
	}
	o.began, o.sid, o.mints = o.d.a.now(), sid, o.d.mints.Load()
	o.cut.Store(true)
	o.d.a.log.Warn("counterfoil: cut off from the store: access tokens are minted from copies, until these are too old",
		"degraded", o.d.a.cfg.Degraded, "copies", o.d.copies.len(), "error", cause)
	select {
	case o.bell <- struct{}{}:
	default:
	}
}

// run asks a store that does not answer until it does.
func (o *outage) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.bell:
		}
		for ctx.Err() == nil && o.cut.Load() {
			pause(ctx, probeEvery)
			if o.answers(ctx) {
				o.end()
			}
		}
	}
}

// answers does what has failed once more: of a store of several machines some
// may have answered all the time.
func (o *outage) answers(ctx context.Context) bool {
	o.mu.Lock()
	sid := o.sid
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	_, err := o.d.a.store.Now(ctx)
	if err == nil {
		_, err = o.within(ctx, readWait, sid)
	}
	return err == nil || !unanswered(err) && !errors.Is(err, context.Canceled)
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cut.Store(false)
	o.d.a.log.Info("counterfoil: the store answers again: access tokens are minted from it",
		"after", o.d.a.now().Sub(o.began).Round(time.Second), "degraded_mints", o.d.mints.Load()-o.mints)
}
