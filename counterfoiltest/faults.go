package counterfoiltest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
)

// errDown is what a store says that a test took down.
var errDown = errors.New("taken down by the test")

// Down takes the authority's store away, or brings it back: refresh, sign-in
// and live checks are answered with "unavailable", local verification goes
// on, and requests of [Authority.Client] fail as if nobody listened.
func (a *Authority) Down(down bool) { a.faults.down.Store(down) }

type faults struct{ down atomic.Bool }

func (f *faults) check() error {
	if f.down.Load() {
		return errors.Join(counterfoil.ErrStoreUnavailable, errDown)
	}
	return nil
}

// faultyStore is a store that can be taken down.
type faultyStore struct {
	counterfoil.Store
	faults *faults
}

func (s faultyStore) Now(ctx context.Context) (time.Time, error) {
	if err := s.faults.check(); err != nil {
		return time.Time{}, err
	}
	return s.Store.Now(ctx)
}

func (s faultyStore) Sessions() counterfoil.SessionStore {
	return faultySessions{s.Store.Sessions(), s.faults}
}

func (s faultyStore) Feed() counterfoil.FeedLog { return faultyFeed{s.Store.Feed(), s.faults} }

// faultyFeed is a log whose tails find nobody while the store is down.
type faultyFeed struct {
	counterfoil.FeedLog
	faults *faults
}

func (f faultyFeed) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	if err := f.faults.check(); err != nil {
		return nil, err
	}
	tail, err := f.FeedLog.Tail(ctx, after)
	if err != nil {
		return nil, err
	}
	return faultyTail{tail, f.faults}, nil
}

type faultyTail struct {
	counterfoil.Tail
	faults *faults
}

func (t faultyTail) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	batch, err := t.Tail.Next(ctx)
	if down := t.faults.check(); down != nil {
		// The entries come again: the follower opens another tail.
		return counterfoil.FeedBatch{}, down
	}
	return batch, err
}

type faultySessions struct {
	counterfoil.SessionStore
	faults *faults
}

func (s faultySessions) Snapshot(ctx context.Context, id string) (snap counterfoil.Snapshot, err error) {
	if err := s.faults.check(); err != nil {
		return snap, err
	}
	return s.SessionStore.Snapshot(ctx, id)
}

func (s faultySessions) Insert(ctx context.Context, session counterfoil.Session) (snap counterfoil.Snapshot, err error) {
	if err := s.faults.check(); err != nil {
		return snap, err
	}
	return s.SessionStore.Insert(ctx, session)
}

func (s faultySessions) Update(ctx context.Context, id string, retain time.Duration, fn func(*counterfoil.Session) (bool, error)) (session counterfoil.Session, r []counterfoil.Revocation, err error) {
	if err := s.faults.check(); err != nil {
		return session, nil, err
	}
	return s.SessionStore.Update(ctx, id, retain, fn)
}

func (s faultySessions) End(ctx context.Context, r counterfoil.EndRequest) (ended counterfoil.Ended, err error) {
	if err := s.faults.check(); err != nil {
		return ended, err
	}
	return s.SessionStore.End(ctx, r)
}

func (s faultySessions) Advance(ctx context.Context, a counterfoil.Advance) (done counterfoil.Advanced, err error) {
	if err := s.faults.check(); err != nil {
		return done, err
	}
	return s.SessionStore.Advance(ctx, a)
}

func (s faultySessions) Subject(ctx context.Context, id string) (subject counterfoil.Subject, err error) {
	if err := s.faults.check(); err != nil {
		return subject, err
	}
	return s.SessionStore.Subject(ctx, id)
}

func (s faultySessions) List(ctx context.Context, q counterfoil.ListQuery) ([]counterfoil.Session, string, error) {
	if err := s.faults.check(); err != nil {
		return nil, "", err
	}
	return s.SessionStore.List(ctx, q)
}

func (s faultySessions) Touch(ctx context.Context, touches []counterfoil.Touch) error {
	if err := s.faults.check(); err != nil {
		return err
	}
	return s.SessionStore.Touch(ctx, touches)
}

func (s faultySessions) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := s.faults.check(); err != nil {
		return 0, err
	}
	return s.SessionStore.Purge(ctx, before, limit)
}
