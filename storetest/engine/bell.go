package engine

import (
	"context"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
)

// bell makes of a store that is polled one that hears of every change, as a
// store in memory does. In a bubble a day passes in no time, and would be
// eight million polls. All that changes the database has to go through it.
type bell struct {
	mu    sync.Mutex
	tails map[*belled]struct{}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for tail := range b.tails {
		tail.Wake()
	}
}

func (b *bell) over(s Store) Store { return bellStore{s, b} }

type bellStore struct {
	Store
	bell *bell
}

func (s bellStore) Sessions() counterfoil.SessionStore {
	return bellSessions{s.Store.Sessions(), s.bell}
}
func (s bellStore) Feed() counterfoil.FeedLog    { return bellFeed{s.Store.Feed(), s.bell} }
func (s bellStore) Catalog() counterfoil.Catalog { return bellCatalog{s.Store.Catalog(), s.bell} }
func (s bellStore) Users() directory.Store       { return bellUsers{s.Store.Users(), s.bell} }

type bellSessions struct {
	counterfoil.SessionStore
	bell *bell
}

func (s bellSessions) End(ctx context.Context, r counterfoil.EndRequest) (counterfoil.Ended, error) {
	defer s.bell.ring()
	return s.SessionStore.End(ctx, r)
}

func (s bellSessions) Advance(ctx context.Context, a counterfoil.Advance) (counterfoil.Advanced, error) {
	defer s.bell.ring()
	return s.SessionStore.Advance(ctx, a)
}

func (s bellSessions) Update(ctx context.Context, id string, retain time.Duration, fn func(*counterfoil.Session) (bool, error)) (counterfoil.Session, []counterfoil.Revocation, error) {
	defer s.bell.ring()
	return s.SessionStore.Update(ctx, id, retain, fn)
}

type bellCatalog struct {
	counterfoil.Catalog
	bell *bell
}

func (c bellCatalog) UpdateKeys(ctx context.Context, retain time.Duration, fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	defer c.bell.ring()
	return c.Catalog.UpdateKeys(ctx, retain, fn)
}

type bellUsers struct {
	directory.Store
	bell *bell
}

func (u bellUsers) Delete(ctx context.Context, id string, a counterfoil.Advance) (counterfoil.Advanced, error) {
	defer u.bell.ring()
	return u.Store.Delete(ctx, id, a)
}

func (u bellUsers) Update(ctx context.Context, id string, fn func(*directory.User) (*counterfoil.Advance, error)) (directory.User, *counterfoil.Advanced, error) {
	defer u.bell.ring()
	return u.Store.Update(ctx, id, fn)
}

type bellFeed struct {
	counterfoil.FeedLog
	bell *bell
}

func (f bellFeed) Tail(ctx context.Context, after int64) (counterfoil.Tail, error) {
	tail, err := f.FeedLog.Tail(ctx, after)
	if err != nil {
		return nil, err
	}
	b := &belled{Tail: tail, rung: make(chan struct{}, 1), bell: f.bell, more: true}
	f.bell.mu.Lock()
	defer f.bell.mu.Unlock()
	f.bell.tails[b] = struct{}{}
	return b, nil
}

// belled waits for the bell before it reads.
type belled struct {
	counterfoil.Tail
	rung chan struct{}
	bell *bell
	more bool // the next read does not wait
}

func (b *belled) Next(ctx context.Context) (counterfoil.FeedBatch, error) {
	if !b.more {
		select {
		case <-ctx.Done():
			return counterfoil.FeedBatch{}, ctx.Err()
		case <-b.rung:
		}
		b.Tail.Wake()
	}
	batch, err := b.Tail.Next(ctx)
	b.more = batch.ReadAt.IsZero()
	return batch, err
}

func (b *belled) Wake() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

func (b *belled) Close() error {
	b.bell.mu.Lock()
	delete(b.bell.tails, b)
	b.bell.mu.Unlock()
	return b.Tail.Close()
}
