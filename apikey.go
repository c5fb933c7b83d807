package counterfoil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/verify"
)

// The scopes of API keys.
const (
	ScopeSessions = "sessions" // start, read, change and end sessions
	ScopeUsers    = "users"    // the directory
	ScopeVerify   = "verify"   // live checks and the feed: what a verifier needs
)

// BackendScopes are all scopes an API key can have.
var BackendScopes = []string{ScopeSessions, ScopeUsers, ScopeVerify}

// NewAPIKey describes an API key to be made.
type NewAPIKey struct {
	Name      string    // what it is for: 1 to 64 bytes of printable text
	ClientID  string    // the application it acts for; default the configured one
	Scopes    []string  // default all of [BackendScopes]
	ExpiresAt time.Time // zero: does not expire
}

// CreateAPIKey makes an API key. The secret is returned once and only its
// hash is kept.
func (a *Authority) CreateAPIKey(ctx context.Context, spec NewAPIKey) (Secret, APIKey, error) {
	now := a.now()
	if spec.ClientID == "" {
		spec.ClientID = a.cfg.ClientID
	}
	if len(spec.Scopes) == 0 {
		spec.Scopes = BackendScopes
	}
	if spec.Name == "" || len(spec.Name) > 64 || !printable(spec.Name) {
		return Secret{}, APIKey{}, &FieldError{"name", "must be 1 to 64 bytes of printable text"}
	}
	if !a.knownClient(spec.ClientID) {
		return Secret{}, APIKey{}, &FieldError{"client_id", fmt.Sprintf("%q is not an application of this authority", spec.ClientID)}
	}
	for _, s := range spec.Scopes {
		if !slices.Contains(BackendScopes, s) {
			return Secret{}, APIKey{}, &FieldError{"scope", fmt.Sprintf("%q is not one of %v", s, BackendScopes)}
		}
	}
	if !spec.ExpiresAt.IsZero() && !spec.ExpiresAt.After(now) {
		return Secret{}, APIKey{}, &FieldError{"expires_at", "is past"}
	}
	id := opaque.NewID()
	secret, hash := opaque.New(opaque.APIKey, id)
	key := APIKey{
		ID: id, Name: spec.Name, ClientID: spec.ClientID, Scopes: slices.Clone(spec.Scopes),
		CreatedAt: now, ExpiresAt: spec.ExpiresAt, SecretHash: hash,
	}
	if err := a.store.Catalog().CreateAPIKey(ctx, key); err != nil {
		return Secret{}, APIKey{}, a.storeError("create API key", err)
	}
	return secret, key, nil
}

// RevokeAPIKey ends an API key; ending an ended one is no error. Other nodes
// notice within a second.
func (a *Authority) RevokeAPIKey(ctx context.Context, id string) error {
	if !opaque.IsSelector(id) {
		return fmt.Errorf("revoke API key: %w", ErrNotFound)
	}
	_, err := a.store.Catalog().UpdateAPIKey(ctx, id, func(k *APIKey) error {
		if k.RevokedAt.IsZero() {
			k.RevokedAt = a.now()
		}
		return nil
	})
	a.apiKeys.forget(id)
	if err != nil {
		return a.storeError("revoke API key", err)
	}
	return nil
}

// APIKeys lists the API keys, newest first.
func (a *Authority) APIKeys(ctx context.Context) ([]APIKey, error) {
	keys, err := a.store.Catalog().APIKeys(ctx)
	if err != nil {
		return nil, a.storeError("list API keys", err)
	}
	return keys, nil
}

// AuthenticateAPIKey returns the good API key with this text. Anything else is
// [verify.ErrTokenInvalid], without detail. A key is read from the store at
// most once a second.
func (a *Authority) AuthenticateAPIKey(ctx context.Context, text string) (APIKey, error) {
	parsed, err := opaque.Parse(opaque.APIKey, text)
	if err != nil {
		return APIKey{}, verify.ErrTokenInvalid
	}
	now := a.now()
	key, generation, ok := a.apiKeys.get(parsed.Selector, now)
	fresh := false
	if !ok {
		key, fresh, err = a.readAPIKey(ctx, parsed.Selector, now)
		if errors.Is(err, ErrNotFound) {
			a.apiKeys.outdated(parsed.Selector)
			return APIKey{}, verify.ErrTokenInvalid
		}
		if err != nil {
			return APIKey{}, a.storeError("read API key", err)
		}
	}
	if !key.RevokedAt.IsZero() || !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt) {
		a.apiKeys.outdated(key.ID)
		return APIKey{}, verify.ErrTokenInvalid
	}
	if !parsed.Matches(key.SecretHash) {
		return APIKey{}, verify.ErrTokenInvalid
	}
	a.apiKeys.put(key, now, generation, fresh)
	return key, nil
}

// readAPIKey reads an API key. A node that is cut off from its store takes the
// one that it read last, where degraded minting is on and for as long: fresh is
// false then.
func (a *Authority) readAPIKey(ctx context.Context, id string, now time.Time) (key APIKey, fresh bool, err error) {
	// A request whose client has left does not hear of it before its body was
	// read: what it waits for is bounded here.
	wait := apiKeyWait
	switch {
	case a.degraded == nil:
	case a.degraded.outage.cut.Load():
		wait = cutWait
	default:
		wait = readWait
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	key, err = a.store.Catalog().APIKey(bounded, id)
	if err != nil && a.degraded != nil && unanswered(err) && ctx.Err() == nil {
		if kept, ok := a.apiKeys.kept(id, now, a.cfg.Degraded); ok {
			return kept, false, nil
		}
	}
	return key, true, err
}

const (
	apiKeyWait      = 5 * time.Second // for a store that does not answer
	apiKeyCacheLife = time.Second
	apiKeyCacheSize = 1024
	apiKeyUseGrain  = time.Minute
)

// apiKeyCache remembers good keys for a second and notes their use. Only keys
// whose secret matched enter, so that guesses cannot push good ones out.
type apiKeyCache struct {
	mu         sync.Mutex
	keys       map[string]*cachedAPIKey
	generation int // grows when a key is revoked here: what was read before does not enter
}

type cachedAPIKey struct {
	key    APIKey
	readAt time.Time
	usedAt time.Time
}

func (c *apiKeyCache) get(id string, now time.Time) (key APIKey, generation int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.keys[id]
	if age := now.Sub(readTime(k)); !ok || age < 0 || age >= apiKeyCacheLife {
		return APIKey{}, c.generation, false
	}
	return k.key, c.generation, true
}

// kept is the key as it was read at most so long ago.
func (c *apiKeyCache) kept(id string, now time.Time, most time.Duration) (APIKey, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.keys[id]
	if !ok {
		return APIKey{}, false
	}
	age, ok := elapsed(now.Sub(k.readAt), now.Round(0).Sub(k.readAt.Round(0)))
	return k.key, ok && age <= most
}

func readTime(k *cachedAPIKey) time.Time {
	if k == nil {
		return time.Time{}
	}
	return k.readAt
}

func (c *apiKeyCache) put(key APIKey, now time.Time, generation int, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.generation {
		return
	}
	k, ok := c.keys[key.ID]
	if !ok {
		if c.keys == nil || len(c.keys) >= apiKeyCacheSize {
			c.keys = make(map[string]*cachedAPIKey)
		}
		k = &cachedAPIKey{}
		c.keys[key.ID] = k
	}
	if fresh {
		k.key, k.readAt = key, now
	}
	k.usedAt = now
}

func (c *apiKeyCache) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	delete(c.keys, id)
}

// outdated forgets a key that was read as good once and is not any more: a node
// that is cut off later must not go back to what it read before.
func (c *apiKeyCache) outdated(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.keys[id]; ok {
		c.generation++
		delete(c.keys, id)
	}
}

// used returns the keys whose recorded last use is more than a minute behind.
func (c *apiKeyCache) used() map[string]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := make(map[string]time.Time)
	for id, k := range c.keys {
		if k.usedAt.Sub(k.key.LastUsedAt) >= apiKeyUseGrain {
			used[id] = k.usedAt
			k.key.LastUsedAt = k.usedAt
		}
	}
	return used
}

func (a *Authority) recordAPIKeyUse(ctx context.Context) error {
	for id, at := range a.apiKeys.used() {
		_, err := a.store.Catalog().UpdateAPIKey(ctx, id, func(k *APIKey) error {
			if k.LastUsedAt.Before(at) {
				k.LastUsedAt = at
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}
