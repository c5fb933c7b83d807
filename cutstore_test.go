package counterfoil_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
)

// cutStore is a store that a test cuts off: it fails at once, or hangs.
type cutStore struct {
	counterfoil.Store
	mu     sync.Mutex
	state  cutState
	change chan struct{} // closed at the next change of the state
	reads  int           // of sessions, that came to the store or would have
}

type cutState int

const (
	answering cutState = iota
	failing
	hanging // does not even hear that nobody waits any more
	moved
)

func newCutStore(store counterfoil.Store) *cutStore {
	return &cutStore{Store: store, change: make(chan struct{})}
}

func (s *cutStore) set(state cutState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	close(s.change)
	s.change = make(chan struct{})
}

func (s *cutStore) pass() error {
	for {
		s.mu.Lock()
		state, change := s.state, s.change
		s.mu.Unlock()
		switch state {
		case failing:
			return errors.Join(counterfoil.ErrStoreUnavailable, errFault)
		case moved:
			return counterfoil.ErrStoreMoved
		case answering:
			return nil
		}
		<-change
	}
}

func (s *cutStore) Now(ctx context.Context) (time.Time, error) {
	if err := s.pass(); err != nil {
		return time.Time{}, err
	}
	return s.Store.Now(ctx)
}

func (s *cutStore) Sessions() counterfoil.SessionStore { return cutSessions{s.Store.Sessions(), s} }
func (s *cutStore) Feed() counterfoil.FeedLog          { return cutLog{s.Store.Feed(), s} }

type cutSessions struct {
	counterfoil.SessionStore
	s *cutStore
}

func (c cutSessions) Snapshot(ctx context.Context, id string) (counterfoil.Snapshot, error) {
	c.s.mu.Lock()
	c.s.reads++
	c.s.mu.Unlock()
	if err := c.s.pass(); err != nil {
		return counterfoil.Snapshot{}, err
	}
	return c.SessionStore.Snapshot(ctx, id)
}

func (c cutSessions) End(ctx context.Context, r counterfoil.EndRequest) (counterfoil.Ended, error) {
	if err := c.s.pass(); err != nil {
		return counterfoil.Ended{}, err
	}
	return c.SessionStore.End(ctx, r)
}

func (c cutSessions) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	if err := c.s.pass(); err != nil {
		return counterfoil.Advanced{}, err
	}
	return c.SessionStore.Advance(ctx, a)
}

func (c cutSessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	if err := c.s.pass(); err != nil {
		return err
	}
	return c.SessionStore.Touch(ctx, touches)
}

type cutLog struct {
	counterfoil.FeedLog
	s *cutStore
}

func (l cutLog) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	if err := l.s.pass(); err != nil {
		return nil, err
	}
	tail, err := l.FeedLog.Tail(ctx, after)
	if err != nil {
		return nil, err
	}
	return cutTail{tail, l.s}, nil
}

type cutTail struct {
	counterfoil.Tail
	s *cutStore
}

func (t cutTail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	batch, err := t.Tail.Next(ctx)
	if cut := t.s.pass(); cut != nil {
		return counterfoil.FeedBatch{}, cut // the entries come again
	}
	return batch, err
}
