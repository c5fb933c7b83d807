package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
)

// gather lets reads of sessions that come at the same time share a statement.
// A round trip to PostgreSQL costs both sides several times what the read in
// it does. While every lane has a statement under way, questions wait, and the
// next statement takes all of them; with a lane free, none waits. A question
// joins only a statement that has not been sent, so that the answer is never
// older than the question.
type gather struct {
	// read answers the questions by one statement. Its error is that of all.
	read func(ctx context.Context, questions []*question) error

	// lanes is how many statements are under way at once. A lane more makes
	// each statement carry less; two keep a server across a network busy.
	lanes int

	mu      sync.Mutex
	waiting []*question
	busy    int // lanes
}

const (
	// gatherMost keeps a statement short, so that it is nothing to wait for.
	gatherMost = 64
	// gatherTimeout bounds a statement, and a question with those before it:
	// behind a database that is silent they would wait one after the other.
	gatherTimeout = 10 * time.Second
)

// question is one session to be read.
type question struct {
	sid   string
	found bool
	snap  counterfoil.Snapshot
	own   session
	err   error
	done  chan struct{}
	batch *batch // set under the lock once it has been taken up
}

// batch is the questions of one statement.
type batch struct {
	asking atomic.Int64 // how many still want to know
	cancel context.CancelFunc
}

// ask reads one session.
func (g *gather) ask(ctx context.Context, sid string) (snap counterfoil.Snapshot, own session, err error) {
	if strings.ContainsRune(sid, 0) || !utf8.ValidString(sid) {
		// PostgreSQL would refuse the statement, and others with it.
		return snap, own, counterfoil.ErrNotFound
	}
	ctx, cancel := context.WithTimeoutCause(ctx, gatherTimeout, errGatherTimeout)
	defer cancel()
	q := &question{sid: sid, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, q)
	free := g.busy < g.lanes
	if free {
		g.busy++
	}
	g.mu.Unlock()
	if free {
		go g.lane()
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		g.leave(q)
		if cause := context.Cause(ctx); errors.Is(cause, errGatherTimeout) {
			return snap, own, cause
		}
		return snap, own, ctx.Err()
	}
	if q.err == nil && !q.found {
		q.err = counterfoil.ErrNotFound
	}
	return q.snap, q.own, q.err
}

// leave is for who no longer waits. A statement that nobody waits for is ended.
func (g *gather) leave(q *question) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if q.batch == nil {
		for i, other := range g.waiting {
			if other == q {
				g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
				return
			}
		}
		return
	}
	if q.batch.asking.Add(-1) == 0 {
		q.batch.cancel()
	}
}

// lane sends statements until nobody waits.
func (g *gather) lane() {
	for {
		ctx, cancel := context.WithTimeoutCause(context.Background(), gatherTimeout, errGatherTimeout)
		questions := g.take(cancel)
		if questions == nil {
			cancel()
			return
		}
		err := g.try(ctx, questions)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
		cancel()
		for _, q := range questions {
			if err != nil {
				q.err = err
			}
			close(q.done)
		}
	}
}

// try is read in a goroutine that is nobody's: a panic there would end the process.
func (g *gather) try(ctx context.Context, questions []*question) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: reading sessions panicked: %v", counterfoil.ErrStoreUnavailable, p)
		}
	}()
	return g.read(ctx, questions)
}

var errGatherTimeout = fmt.Errorf("%w: no answer within %s", counterfoil.ErrStoreUnavailable, gatherTimeout)

// take takes up the questions of the next statement; nil ends the lane.
func (g *gather) take(cancel context.CancelFunc) []*question {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), gatherMost)
	if n == 0 {
		g.busy--
		return nil
	}
	b := &batch{cancel: cancel}
	b.asking.Store(int64(n))
	questions := g.waiting[:n:n]
	if g.waiting = g.waiting[n:]; len(g.waiting) == 0 {
		g.waiting = nil
	}
	for _, q := range questions {
		q.batch = b
	}
	return questions
}

// gathered is written so that PostgreSQL looks up one row after the other by
// its key, keeps the plan (it would make a new one for each length of a list
// behind ANY, which takes longer than the reads), and never reads all subjects.
const gathered = `SELECT ` + snapshotColumns + ` FROM unnest(string_to_array($1, ',')) q
	CROSS JOIN LATERAL (SELECT * FROM {sessions} x WHERE x.sid = q OFFSET 0) s
	CROSS JOIN LATERAL (SELECT * FROM {subjects} x WHERE x.no = s.subject_no OFFSET 0) u`

// readGathered answers questions by one statement.
func (s *sessions) readGathered(ctx context.Context, questions []*question) error {
	return s.in.view(ctx, func(on runner) error {
		if len(questions) == 1 {
			q := questions[0]
			snap, own, err := s.readSnapshot(ctx, on, q.sid)
			if errors.Is(err, counterfoil.ErrNotFound) {
				return nil
			}
			q.snap, q.own, q.found = snap, own, err == nil
			return err
		}
		sids := make([]string, len(questions))
		for i, q := range questions {
			sids[i], q.found, q.err = q.sid, false, nil
		}
		return each(ctx, on, func(r *row) error {
			sid := r.text()
			r.next = 0
			for _, q := range questions {
				if q.sid != sid {
					continue
				}
				// Each gets its own: who asked twice shares no memory. A row
				// that cannot be read is the fault of one session.
				r.next, r.err = 0, nil
				q.snap, q.own = s.snapshotOf(r)
				q.found, q.err = true, r.err
			}
			r.err = nil
			return nil
		}, gathered, strings.Join(sids, ","))
	})
}
