package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// patience is how long a duty waits for a tail. A good one takes milliseconds.
const patience = 10 * time.Second

// follower reads a tail and checks each batch against the ones before.
type follower struct {
	*env
	tail counterfoil.Tail
	told map[int64]counterfoil.Revocation
	last counterfoil.FeedBatch
}

func (e *env) follow(after int64) *follower {
	e.t.Helper()
	tail, err := e.feed.Tail(e.ctx, after)
	e.must("Tail", err)
	e.t.Cleanup(func() {
		if err := tail.Close(); err != nil {
			e.t.Errorf("Tail.Close: %v", err)
		}
	})
	return &follower{env: e, tail: tail, told: map[int64]counterfoil.Revocation{}}
}

// read reads once, without waiting for a change.
func (f *follower) read() (counterfoil.FeedBatch, error) {
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	f.tail.Wake()
	before := time.Now()
	batch, err := f.tail.Next(ctx)
	if err != nil {
		return batch, err
	}
	for _, r := range batch.Entries {
		f.told[r.Position] = r
	}
	switch {
	case !batch.ReadAt.IsZero() && (batch.ReadAt.Before(before) || batch.ReadAt.After(time.Now())):
		err = fmt.Errorf("ReadAt is %s, the call began %s", batch.ReadAt, before)
	case batch.Timeline == f.last.Timeline && batch.Resolved < f.last.Resolved:
		err = fmt.Errorf("the resolved position fell from %d to %d", f.last.Resolved, batch.Resolved)
	}
	f.last = batch
	return batch, err
}

// next reads until nothing more is to come at once.
func (f *follower) next() counterfoil.FeedBatch {
	f.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		batch, err := f.read()
		f.must("Tail.Next", err)
		if !batch.ReadAt.IsZero() {
			return batch
		}
	}
	f.t.Fatalf("ReadAt is zero for %s, as if more were to come at once", patience)
	return counterfoil.FeedBatch{}
}

// until reads until ok, which a good tail makes it soon.
func (f *follower) until(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); ; {
		if f.next(); ok() {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("not within %s: %s; the last batch: %+v", patience, what, f.last)
		}
	}
}

// resolve reads until all that was given is resolved.
func (f *follower) resolve() {
	f.t.Helper()
	head := f.head()
	f.until("Resolved reaches the head", func() bool { return f.last.Resolved >= head.Position })
	if f.last.Resolved > head.Position || f.last.Timeline != head.Timeline {
		f.t.Errorf("resolved up to %d of timeline %d, the head is %+v", f.last.Resolved, f.last.Timeline, head)
	}
}

// wantTold wants the entries to have been told, as they were reported.
func (f *follower) wantTold(reported []counterfoil.Revocation) {
	f.t.Helper()
	for _, want := range reported {
		if got, ok := f.told[want.Position]; !ok || !sameEntry(got, want) {
			f.t.Errorf("told %q, want %q", brief([]counterfoil.Revocation{got}), brief([]counterfoil.Revocation{want}))
		}
	}
}

var tailDuties = []duty{
	{"The first read tells all that is retained", func(t *testing.T, e *env) {
		e.addKey("key", counterfoil.KeyActive)
		all := append(e.change(), e.revokeKey("key")...)
		f := e.follow(0)
		if f.next(); f.last.KeyVersion == 0 {
			t.Error("KeyVersion is 0, and there is a key")
		}
		f.wantTold(all)
		f.resolve()
		if len(f.told) != len(all) {
			t.Errorf("%d entries were told, %d reported", len(f.told), len(all))
		}
	}},
	{"The next read tells what was committed before it", func(t *testing.T, e *env) {
		f, g := e.follow(0), e.follow(0)
		f.next()
		for range 3 {
			all := e.change()
			f.next()
			f.wantTold(all)
			g.next() // tails take nothing from each other
			g.wantTold(all)
		}
	}},
	{"A tail from Resolved leaves nothing out", func(t *testing.T, e *env) {
		f := e.follow(0)
		var all []counterfoil.Revocation
		for range 4 {
			all = append(all, e.change()...)
			f.next()
			after := f.last.Resolved
			late := e.change()
			g := e.follow(after)
			g.next()
			g.wantTold(late)
			for _, r := range all { // a reader that has those up to Resolved
				if _, ok := g.told[r.Position]; !ok && r.Position > after {
					t.Errorf("%d is above %d and was not told", r.Position, after)
				}
			}
			all = append(all, late...)
		}
		g := e.follow(e.head().Position)
		g.next()
		g.resolve()
	}},
	{"A log that was emptied is resolved up to its head", func(t *testing.T, e *env) {
		e.change()
		e.clock.move(retain + time.Hour)
		e.prune(e.clock.now())
		f := e.follow(0)
		f.resolve()
		all := e.change()
		f.next()
		f.wantTold(all)
	}},
	{"A change of the signing keys is told", func(t *testing.T, e *env) {
		f := e.follow(0)
		f.next()
		for i := range 3 {
			e.addKey(fmt.Sprint("key ", i), counterfoil.KeyNext)
			ring, err := e.catalog.Keys(e.ctx)
			e.must("Keys", err)
			if f.next(); f.last.KeyVersion != ring.Version {
				t.Errorf("KeyVersion %d, want %d", f.last.KeyVersion, ring.Version)
			}
		}
	}},
	{"Next needs nobody to wake it", func(t *testing.T, e *env) {
		f := e.follow(0)
		f.next()
		told := make(chan error)
		s := e.start("ann")
		go func() {
			for {
				batch, err := f.tail.Next(e.ctx)
				if err != nil || len(batch.Entries) > 0 {
					told <- err
					return
				}
			}
		}()
		e.end(s.ID)
		select {
		case err := <-told:
			e.must("Next", err)
		case <-time.After(patience):
			t.Fatal("an entry was not told")
		}
	}},
	{"Next ends with its context, also when woken", func(t *testing.T, e *env) {
		f := e.follow(0)
		f.next()
		ctx, cancel := context.WithCancel(e.ctx)
		ended := make(chan error)
		go func() {
			for {
				if _, err := f.tail.Next(ctx); err != nil {
					ended <- err
					return
				}
			}
		}()
		cancel()
		f.tail.Wake()
		select {
		case err := <-ended:
			e.wantErr("Next", err, context.Canceled)
		case <-time.After(patience):
			t.Fatal("Next does not end")
		}
	}},
	{"What was committed before a read is told, and all up to Resolved", raceTail},
}

// raceTail writes from several sides at once, and at each batch asks for what
// it promises: all that was committed before it was read, and all that is
// resolved.
func raceTail(t *testing.T, e *env) {
	const writers = 8
	f := e.follow(0)
	f.next()
	var reported record
	var running atomic.Int32
	running.Store(writers)
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			defer running.Add(-1)
			subject := fmt.Sprint("subject ", i)
			for range e.Rounds {
				snap, err := e.sessions.Insert(e.ctx, e.session(subject))
				if err != nil {
					t.Errorf("Insert: %v", err)
					return
				}
				ended, err := e.sessions.End(e.ctx, endRequest(snap.Session.ID))
				if err != nil {
					t.Errorf("End: %v", err)
					return
				}
				reported.add(ended.Revocations...)
				done, err := e.sessions.Advance(e.ctx, rightsOnly(subject))
				if err != nil {
					t.Errorf("Advance: %v", err)
					return
				}
				reported.add(done.Revocation)
			}
		})
	}
	defer wait.Wait()
	for over := false; !over && !t.Failed(); {
		over = running.Load() == 0
		reported.mu.Lock()
		before := len(reported.all)
		reported.mu.Unlock()
		f.next()
		reported.mu.Lock()
		for i, r := range reported.all {
			if _, ok := f.told[r.Position]; !ok && (i < before || r.Position <= f.last.Resolved) {
				t.Errorf("%d was committed before the read began, or is resolved (%d), and was not told", r.Position, f.last.Resolved)
				break
			}
		}
		reported.mu.Unlock()
	}
	f.resolve()
	e.wantLogged(0, reported.all)
}
