package memstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// apiKey is a row; version changes with each write of it.
type apiKey struct {
	counterfoil.APIKey
	version int64
}

// catalog is the Store as its Catalog.
type catalog struct{ *Store }

func (c catalog) Keys(ctx context.Context) (counterfoil.KeyRing, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.KeyRing{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return cloneRing(c.ring), nil
}

func (c catalog) UpdateKeys(ctx context.Context, retain time.Duration, fn func(*counterfoil.KeyRing) error) (counterfoil.KeyRing, []counterfoil.Revocation, error) {
	for {
		seen, err := c.Keys(ctx)
		if err != nil {
			return counterfoil.KeyRing{}, nil, err
		}
		changed := cloneRing(seen)
		if err := fn(&changed); err != nil {
			return counterfoil.KeyRing{}, nil, err
		}
		changed = cloneRing(changed)
		changed.Version = seen.Version + 1
		if revocations, swapped := c.swapRing(changed, retain); swapped {
			return cloneRing(changed), revocations, nil
		}
	}
}

// swapRing installs the ring unless another came first, and reports the keys
// that it turns to revoked.
func (s *Store) swapRing(changed counterfoil.KeyRing, retain time.Duration) (revocations []counterfoil.Revocation, swapped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring.Version+1 != changed.Version {
		return nil, false
	}
	was := make(map[string]counterfoil.KeyState, len(s.ring.Keys))
	for _, k := range s.ring.Keys {
		was[k.ID] = k.State
	}
	s.ring = changed
	s.wakeTails()
	now := s.now()
	for _, k := range changed.Keys {
		if k.State == counterfoil.KeyRevoked && was[k.ID] != counterfoil.KeyRevoked {
			revocations = append(revocations, s.report(counterfoil.Revocation{Kind: revoked.Key, ID: k.ID}, now, retain))
		}
	}
	return revocations, true
}

func (c catalog) CreateAPIKey(ctx context.Context, k counterfoil.APIKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.ID == "" {
		return errors.New("create API key: ID must be set")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.apiKeys[k.ID]; taken {
		return fmt.Errorf("API key %q: %w", k.ID, counterfoil.ErrConflict)
	}
	c.apiKeys[k.ID] = &apiKey{APIKey: cloneAPIKey(k)}
	return nil
}

func (c catalog) APIKey(ctx context.Context, id string) (counterfoil.APIKey, error) {
	k, _, err := c.readAPIKey(ctx, id)
	return k, err
}

func (s *Store) readAPIKey(ctx context.Context, id string) (counterfoil.APIKey, int64, error) {
	if err := ctx.Err(); err != nil {
		return counterfoil.APIKey{}, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.apiKeys[id]
	if !ok {
		return counterfoil.APIKey{}, 0, fmt.Errorf("API key %q: %w", id, counterfoil.ErrNotFound)
	}
	return cloneAPIKey(row.APIKey), row.version, nil
}

func (c catalog) UpdateAPIKey(ctx context.Context, id string, fn func(*counterfoil.APIKey) error) (counterfoil.APIKey, error) {
	for {
		k, version, err := c.readAPIKey(ctx, id)
		if err != nil {
			return counterfoil.APIKey{}, err
		}
		if err := fn(&k); err != nil {
			return counterfoil.APIKey{}, err
		}
		k = cloneAPIKey(k)
		k.ID = id
		if c.swapAPIKey(k, version) {
			return cloneAPIKey(k), nil
		}
	}
}

func (s *Store) swapAPIKey(k counterfoil.APIKey, version int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.apiKeys[k.ID]
	if row.version != version {
		return false
	}
	row.APIKey = k
	row.version++
	return true
}

func (c catalog) APIKeys(ctx context.Context) ([]counterfoil.APIKey, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]counterfoil.APIKey, 0, len(c.apiKeys))
	for _, row := range c.apiKeys {
		all = append(all, cloneAPIKey(row.APIKey))
	}
	slices.SortFunc(all, func(a, b counterfoil.APIKey) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	return all, nil
}

func cloneAPIKey(k counterfoil.APIKey) counterfoil.APIKey {
	k.Scopes = slices.Clone(k.Scopes)
	k.CreatedAt, k.ExpiresAt = moment(k.CreatedAt), moment(k.ExpiresAt)
	k.LastUsedAt, k.RevokedAt = moment(k.LastUsedAt), moment(k.RevokedAt)
	return k
}

func cloneRing(r counterfoil.KeyRing) counterfoil.KeyRing {
	r.Keys = slices.Clone(r.Keys)
	for i := range r.Keys {
		k := &r.Keys[i]
		k.Public, k.Sealed = slices.Clone(k.Public), slices.Clone(k.Sealed)
		k.CreatedAt, k.Until = moment(k.CreatedAt), moment(k.Until)
	}
	return r
}
