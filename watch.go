package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/verify"
)

const (
	// watchesOfASession is enough for a browser whose tabs cannot agree on one.
	watchesOfASession = 10
	// watchesOfASubject keeps one user, who can have any number of sessions,
	// from taking the places of all.
	watchesOfASubject = 100
	// watchFull is when to come again where there is no room.
	watchFull = 30 * time.Second
	// lookApart keeps a subject whose rights change without end from having
	// the store read as often.
	lookApart = 100 * time.Millisecond
	// lookAtLeast is how long a watch goes without a look at the store. That the
	// session token was replaced is in no log: this node hears of its own
	// replacements, and of another node's here.
	lookAtLeast = 15 * time.Minute
	// lookLate is the most by which the look at a session that is due is put
	// off, so that sessions that started together do not come together.
	lookLate = time.Second
	// watchNap bounds a wait by a timer, which stands still while a machine is suspended.
	watchNap = time.Minute

	firstLookAgain = 250 * time.Millisecond
	lastLookAgain  = 5 * time.Second
)

// SessionWatch tells one waiting party, such as a page, what becomes of a
// session. It is for one goroutine. Stop frees what it holds.
type SessionWatch struct {
	authority *Authority
	sid       string
	subject   string
	secret    opaque.Hash   // of the session token that it was opened with
	epoch     atomic.Int64  // of the subject, as the last look found it
	bell      chan struct{} // something was revoked that may concern the session
	dismissed atomic.Bool   // it is to end, with the bell

	// For the goroutine that waits.
	due    time.Time // when to look at the store next, by this node's clock
	looked time.Time
	again  time.Duration // how long to wait after the store failed; 0: it did not
}

// WatchSession watches a live session, as [Authority.Authenticate] returned
// it. Revocations reach the watch through this process's own table, those of
// other nodes as the feed log tells them; the store is read only then, when the session
// would expire, and every quarter of an hour. So thousands of watches cost no polling.
//
// An [*EndedError] when the session ended meanwhile, a [*RateLimitedError]
// when it is watched ten times already or the sessions of its subject a
// hundred times, [verify.ErrUnavailable] when there are
// [Config.MaxWatches] of them or the store cannot be read.
func (a *Authority) WatchSession(ctx context.Context, s Session) (*SessionWatch, error) {
	if !opaque.IsSelector(s.ID) {
		return nil, &EndedError{Err: ErrSessionUnknown}
	}
	w := &SessionWatch{authority: a, sid: s.ID, subject: s.Subject, secret: s.SecretHash, bell: make(chan struct{}, 1)}
	if err := a.watches.add(w); err != nil {
		return nil, err
	}
	// Heard of from now on, and read after that: what was revoked in between
	// is found by one or the other.
	if _, err := w.look(ctx); err != nil {
		w.Stop()
		return nil, err
	}
	return w, nil
}

// SessionID is the sid of the session.
func (w *SessionWatch) SessionID() string { return w.sid }

// Epoch is the subject's epoch as the watch knows it: an access token of a
// lower one is stale.
func (w *SessionWatch) Epoch() int64 { return w.epoch.Load() }

// Wait returns nil when the subject's rights have changed, so that the access
// token is to be refreshed, and an [*EndedError] when the session has ended,
// which is the last word. Otherwise the error of ctx, or [verify.ErrUnavailable]
// once the authority is closed or the session token was replaced, as a step-up
// does (at another node: within a quarter of an hour): then watch again, with the present token. Nothing that happens between two calls is missed.
func (w *SessionWatch) Wait(ctx context.Context) error {
	for {
		timer := time.NewTimer(min(max(w.due.Sub(w.authority.now()), 0), watchNap))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-w.authority.watches.closed:
			timer.Stop()
			return verify.ErrUnavailable
		case <-w.bell:
		case <-timer.C:
			if w.authority.now().Before(w.due) {
				continue
			}
		}
		timer.Stop()
		if w.dismissed.Load() {
			return verify.ErrUnavailable
		}
		pause(ctx, lookApart-time.Since(w.looked))
		if ctx.Err() != nil {
			w.ring() // not looked at yet
			return ctx.Err()
		}
		before := w.Epoch()
		failed, err := w.look(ctx)
		switch {
		case failed && ctx.Err() != nil:
			w.ring()
			return ctx.Err()
		case failed:
			w.again = min(max(2*w.again, firstLookAgain), lastLookAgain)
			w.due = w.authority.now().Add(w.again/2 + rand.N(w.again))
		case err != nil:
			return err
		case w.Epoch() > before:
			return nil
		}
	}
}

// Stop ends the watch.
func (w *SessionWatch) Stop() { w.authority.watches.remove(w) }

// look reads the session. failed says that the store did not answer.
func (w *SessionWatch) look(ctx context.Context) (failed bool, err error) {
	a := w.authority
	w.looked = time.Now()
	snap, err := a.sessions.Snapshot(ctx, w.sid)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, &EndedError{Err: ErrSessionUnknown}
	case err != nil:
		return true, a.storeError("watch session", err)
	}
	if err := snap.ended(); err != nil {
		return false, err
	}
	if snap.Session.SecretHash != w.secret {
		// The session goes on, with another token: whoever has it watches anew.
		return false, fmt.Errorf("%w: the session token was replaced", verify.ErrUnavailable)
	}
	w.again = 0
	w.epoch.Store(max(snap.Subject.Epoch, w.Epoch()))
	w.due = a.now().Add(min(snap.Session.IdleExpiresAt().Sub(snap.Now), lookAtLeast) + rand.N(lookLate))
	return false, nil
}

func (w *SessionWatch) ring() {
	select {
	case w.bell <- struct{}{}:
	default: // it rings already
	}
}

// sessionWatches are the watches that were not stopped.
type sessionWatches struct {
	most   int
	closed chan struct{}
	listen sync.Once
	end    sync.Once

	mu       sync.Mutex
	all      int
	sessions map[string]map[*SessionWatch]struct{}
	subjects map[string]map[*SessionWatch]struct{}
}

func newSessionWatches(most int) *sessionWatches {
	return &sessionWatches{
		most: most, closed: make(chan struct{}),
		sessions: make(map[string]map[*SessionWatch]struct{}), subjects: make(map[string]map[*SessionWatch]struct{}),
	}
}

func (s *sessionWatches) close() { s.end.Do(func() { close(s.closed) }) }

func (s *sessionWatches) add(w *SessionWatch) error {
	s.listen.Do(func() { w.authority.revocations.Listen(s.heard) })
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.sessions[w.sid]) >= watchesOfASession, len(s.subjects[w.subject]) >= watchesOfASubject:
		return &RateLimitedError{RetryAfter: watchFull}
	case s.all >= s.most:
		full := *verify.ErrUnavailable.(*verify.Error)
		full.RetryAfter = watchFull/2 + rand.N(watchFull)
		return &full
	}
	s.all++
	for _, at := range []struct {
		by map[string]map[*SessionWatch]struct{}
		id string
	}{{s.sessions, w.sid}, {s.subjects, w.subject}} {
		if at.by[at.id] == nil {
			at.by[at.id] = make(map[*SessionWatch]struct{})
		}
		at.by[at.id][w] = struct{}{}
	}
	return nil
}

func (s *sessionWatches) remove(w *SessionWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.sessions[w.sid][w]; !there {
		return
	}
	s.all--
	if delete(s.sessions[w.sid], w); len(s.sessions[w.sid]) == 0 {
		delete(s.sessions, w.sid)
	}
	if delete(s.subjects[w.subject], w); len(s.subjects[w.subject]) == 0 {
		delete(s.subjects, w.subject)
	}
}

// replaced rings for the watches of a session whose token was replaced.
func (s *sessionWatches) replaced(sid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.sessions[sid] {
		w.ring()
	}
}

// heard rings for the watches that revocations may concern. Entries come more
// than once, from the call that made them and from the log; those of a subject
// that a watch has seen are passed over.
func (s *sessionWatches) heard(entries []revoked.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == 0 {
		return
	}
	for _, e := range entries {
		switch e.Kind {
		case revoked.Session:
			for w := range s.sessions[e.ID] {
				w.ring()
			}
		case revoked.Subject:
			for w := range s.subjects[e.ID] {
				if max(e.StaleBelow, e.RevokedBelow) > w.Epoch() {
					w.ring()
				}
			}
		}
	}
}

func (s *sessionWatches) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}
