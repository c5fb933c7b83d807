package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
)

// gather lets calls of one kind that come at the same time share a statement.
// A round trip to PostgreSQL costs both sides several times what the work in
// it does, and so does a commit. While a statement is under way, calls wait, and
// the next one takes all of them; while none is, no call waits. A call joins only
// a statement that has not been sent, so that what it is told is never older than
// itself. More than one statement is under way, a lane for each, when a whole
// statement's worth waits or the wait gets long: the server is far away, or one
// connection leads nowhere.
type gather[T any] struct {
	// send carries out the calls by one statement. Its error is that of all.
	send func(ctx context.Context, calls []*call[T]) error

	// lanes is how many statements may be under way at once.
	lanes int

	mu      sync.Mutex
	waiting []*call[T]
	busy    int         // lanes
	late    *time.Timer // runs while calls wait
}

const (
	// gatherMost keeps a statement short, so that it is nothing to wait for.
	gatherMost = 64
	// gatherTimeout bounds a statement, and a call with those before it:
	// behind a database that is silent they would wait one after the other.
	gatherTimeout = 10 * time.Second
	// gatherPatience is much longer than a statement takes where it is quick.
	gatherPatience = 20 * time.Millisecond
)

// call is one of those that share a statement.
type call[T any] struct {
	it    T // what is asked, and the answer
	err   error
	done  chan struct{}
	batch *batch // set under the lock once it has been taken up
}

// batch is the calls of one statement.
type batch struct {
	asking atomic.Int64 // how many still want to know
	cancel context.CancelFunc
}

// do carries out one call. After an error nobody knows what became of it,
// unless the error says so.
func (g *gather[T]) do(ctx context.Context, it T) (answer T, err error) {
	if err := ctx.Err(); err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, gatherTimeout, errGatherTimeout)
	defer cancel()
	c := &call[T]{it: it, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	switch n := len(g.waiting); {
	case g.busy == 0 || n >= gatherMost:
		g.open()
	case n == 1:
		g.watch()
	}
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.it, c.err
	case <-ctx.Done():
		g.leave(c)
		if cause := context.Cause(ctx); errors.Is(cause, errGatherTimeout) {
			return answer, cause
		}
		return answer, ctx.Err()
	}
}

// open sends what waits by a statement more, under the lock.
func (g *gather[T]) open() {
	if g.busy < g.lanes {
		g.busy++
		go g.lane()
	}
}

// watch looks again after a while whether calls wait, under the lock.
func (g *gather[T]) watch() {
	switch {
	case g.busy == g.lanes:
	case g.late == nil:
		g.late = time.AfterFunc(gatherPatience, g.tooLong)
	default:
		g.late.Reset(gatherPatience)
	}
}

// tooLong is for calls that have waited for gatherPatience.
func (g *gather[T]) tooLong() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		g.open()
	}
}

// leave is for who no longer waits. A statement that nobody waits for is ended.
func (g *gather[T]) leave(c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.batch == nil {
		for i, other := range g.waiting {
			if other == c {
				g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
				return
			}
		}
		return
	}
	if c.batch.asking.Add(-1) == 0 {
		c.batch.cancel()
	}
}

// lane sends statements until nobody waits.
func (g *gather[T]) lane() {
	for {
		ctx, cancel := context.WithTimeoutCause(context.Background(), gatherTimeout, errGatherTimeout)
		calls := g.take(cancel)
		if calls == nil {
			cancel()
			return
		}
		err := g.try(ctx, calls)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
		cancel()
		for _, c := range calls {
			if err != nil {
				c.err = err
			}
			close(c.done)
		}
	}
}

// try is send in a goroutine that is nobody's: a panic there would end the process.
func (g *gather[T]) try(ctx context.Context, calls []*call[T]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: a shared statement panicked: %v", counterfoil.ErrStoreUnavailable, p)
		}
	}()
	return g.send(ctx, calls)
}

var errGatherTimeout = fmt.Errorf("%w: no answer within %s", counterfoil.ErrStoreUnavailable, gatherTimeout)

// take takes up the calls of the next statement; nil ends the lane.
func (g *gather[T]) take(cancel context.CancelFunc) []*call[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), gatherMost)
	if n == 0 {
		g.busy--
		return nil
	}
	b := &batch{cancel: cancel}
	b.asking.Store(int64(n))
	calls := g.waiting[:n:n]
	if g.waiting = g.waiting[n:]; len(g.waiting) > 0 {
		g.watch()
	} else if g.waiting = nil; g.late != nil {
		g.late.Stop()
	}
	for _, c := range calls {
		c.batch = b
	}
	return calls
}
