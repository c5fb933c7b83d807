package counterfoil

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/verify"
)

// retireMargin is how long a retired key stays published after its last token
// is dead, so that expired tokens can still be exchanged (protocol section 6).
const retireMargin = 10 * time.Minute

// maxPublishedKeys bounds the key set, which every verifier reads whole.
const maxPublishedKeys = 64

// keySet is the opened form of one version of the key ring. It is immutable.
type keySet struct {
	version int64
	signer  *jws.Signer
	kid     string // of signer
	public  map[string]*jws.PublicKey
	list    []*jws.PublicKey
	until   map[string]time.Time // when retiring keys leave
	jwks    []byte
}

// startKeys reads the ring, makes the first keys when there are none, and
// switches the algorithm when another is configured. Only a starting node does
// that: nodes of two configurations would otherwise take turns forever.
func (a *Authority) startKeys(ctx context.Context) error {
	ring, err := a.store.Catalog().Keys(ctx)
	if err != nil {
		return fmt.Errorf("read signing keys: %w", err)
	}
	if ring.Version == 0 || !ringReady(&ring, a.cfg.Algorithm) {
		ring, _, err = a.store.Catalog().UpdateKeys(ctx, a.retain(), func(r *KeyRing) error {
			// A wrong seal must never lead to new keys beside those it cannot open.
			if err := a.openable(r); err != nil {
				return err
			}
			return a.completeRing(r)
		})
		if err != nil {
			return fmt.Errorf("make signing keys: %w", err)
		}
	}
	return a.installKeys(&ring)
}

// loadKeys reads the ring and installs the opened set unless a newer one is
// there already.
func (a *Authority) loadKeys(ctx context.Context) error {
	ring, err := a.store.Catalog().Keys(ctx)
	if err != nil {
		return fmt.Errorf("read signing keys: %w", err)
	}
	return a.installKeys(&ring)
}

func ringReady(r *KeyRing, alg string) bool {
	var active, next bool
	for _, k := range r.Keys {
		if k.Algorithm == alg {
			active = active || k.State == KeyActive
			next = next || k.State == KeyNext
		}
	}
	return active && next
}

func (a *Authority) openable(r *KeyRing) error {
	for _, k := range r.Keys {
		if len(k.Sealed) > 0 {
			if _, err := unseal(a.seal, k.ID, k.Sealed); err != nil {
				return err
			}
		}
	}
	return nil
}

// completeRing gives the configured algorithm an active and a next key, and
// retires the active keys of others: the algorithm was switched.
func (a *Authority) completeRing(r *KeyRing) error {
	now := a.now()
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.Algorithm != a.cfg.Algorithm && (k.State == KeyActive || k.State == KeyNext) {
			a.retire(k, now)
		}
	}
	for !ringReady(r, a.cfg.Algorithm) {
		state := KeyActive
		if slices.ContainsFunc(r.Keys, func(k KeyRecord) bool { return k.Algorithm == a.cfg.Algorithm && k.State == KeyActive }) {
			state = KeyNext
		}
		k, err := a.newKey(state, now)
		if err != nil {
			return err
		}
		r.Keys = append(r.Keys, k)
	}
	r.Keys = slices.DeleteFunc(r.Keys, func(k KeyRecord) bool {
		return k.State == KeyRetiring && !k.Until.After(now)
	})
	published := 0
	for _, k := range r.Keys {
		if k.State != KeyRevoked {
			published++
		}
	}
	if published > maxPublishedKeys {
		return fmt.Errorf("%w: %d keys are still published, wait until retiring ones have left", ErrConflict, published-1)
	}
	return nil
}

func (a *Authority) retire(k *KeyRecord, now time.Time) {
	k.State = KeyRetiring
	k.Until = now.Add(a.maxTokenLifetime() + clockTolerance + retireMargin)
	k.Sealed = nil
}

func (a *Authority) newKey(state KeyState, now time.Time) (KeyRecord, error) {
	var private crypto.Signer
	switch jws.Alg(a.cfg.Algorithm) {
	case jws.ES256:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return KeyRecord{}, err
		}
		private = k
	case jws.EdDSA:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return KeyRecord{}, err
		}
		private = k
	}
	kid, err := jwk.Thumbprint(private.Public())
	if err != nil {
		return KeyRecord{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return KeyRecord{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return KeyRecord{}, err
	}
	return KeyRecord{
		ID: kid, Algorithm: a.cfg.Algorithm, State: state, Public: public,
		Sealed: seal(a.seal, kid, secret), CreatedAt: now,
	}, nil
}

func (a *Authority) installKeys(r *KeyRing) error {
	set := &keySet{version: r.Version, public: map[string]*jws.PublicKey{}, until: map[string]time.Time{}}
	for _, k := range r.Keys {
		if k.State == KeyRevoked {
			continue
		}
		pub, err := x509.ParsePKIXPublicKey(k.Public)
		if err != nil {
			return fmt.Errorf("signing key %s: %w", k.ID, err)
		}
		key, err := jws.NewPublicKey(k.ID, jws.Alg(k.Algorithm), pub)
		if err != nil {
			return fmt.Errorf("signing key %s: %w", k.ID, err)
		}
		set.public[k.ID] = key
		set.list = append(set.list, key)
		if k.State == KeyRetiring {
			set.until[k.ID] = k.Until
		}
		// Another node may have switched the algorithm: its key signs then.
		if k.State != KeyActive || set.signer != nil && k.Algorithm != a.cfg.Algorithm {
			continue
		}
		set.kid = k.ID
		set.signer, err = a.openSigner(&k)
		if err != nil {
			return err
		}
	}
	if set.signer == nil {
		return errors.New("the key ring has no active signing key")
	}
	set.jwks = jwk.MarshalSet(jwk.Set{Version: set.version, Keys: set.list})
	for {
		old := a.keys.Load()
		if old != nil && old.version >= set.version {
			return nil
		}
		if a.keys.CompareAndSwap(old, set) {
			a.revocations.Advance() // what verifiers remember was verified with the old one
			return nil
		}
	}
}

func (a *Authority) openSigner(k *KeyRecord) (*jws.Signer, error) {
	der, err := unseal(a.seal, k.ID, k.Sealed)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("signing key %s: a %T does not sign", k.ID, private)
	}
	return jws.NewSigner(k.ID, jws.Alg(k.Algorithm), verify.TokenType, signer)
}

// publicKey finds a published key without I/O. A retiring key whose time is
// over is gone even before the ring is next read.
func (a *Authority) publicKey(kid string) (*jws.PublicKey, bool) {
	set := a.keys.Load()
	key, ok := set.public[kid]
	if !ok {
		return nil, false
	}
	if until, retiring := set.until[kid]; retiring && !a.now().Before(until) {
		return nil, false
	}
	return key, true
}

// missingKey reads the key ring when it may have the key of a token that this
// node does not know: another node's new key signs before this one has heard of
// it. found says that it is there now. While the ring cannot be read nobody
// knows, and that is the error.
func (a *Authority) missingKey(ctx context.Context, token string) (found bool, err error) {
	msg, err := jws.Parse(token)
	if err != nil {
		return false, nil // no key makes that good
	}
	kid := msg.Header.Kid
	if _, known := a.publicKey(kid); known || a.revocations.KeyRevoked(kid) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	if err := a.loadKeys(ctx); err != nil {
		return false, fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
	}
	_, found = a.publicKey(kid)
	return found, nil
}

// JWKS returns the published key set (RFC 7517) with its version as
// cf_version: public members only.
func (a *Authority) JWKS() []byte { return a.keys.Load().jwks }

// RotateKeys makes the next key the active one, publishes a new next, and
// lets the old active key retire: it verifies until its last token is dead.
// Let five minutes pass between two rotations: verifiers that do not follow
// the feed read the key set that often, and know the next key by then.
func (a *Authority) RotateKeys(ctx context.Context) error {
	return a.changeKeys(ctx, func(r *KeyRing, now time.Time) error {
		for i := range r.Keys {
			k := &r.Keys[i]
			switch k.State {
			case KeyActive:
				a.retire(k, now)
			case KeyNext:
				k.State = KeyActive
			}
		}
		return nil
	})
}

// RevokeKey is the emergency: every token signed with the key is refused from
// now on, the next key signs, and clients refresh by themselves.
func (a *Authority) RevokeKey(ctx context.Context, kid string) error {
	return a.changeKeys(ctx, func(r *KeyRing, now time.Time) error {
		i := slices.IndexFunc(r.Keys, func(k KeyRecord) bool { return k.ID == kid })
		if i < 0 {
			return fmt.Errorf("signing key %s: %w", kid, ErrNotFound)
		}
		wasActive := r.Keys[i].State == KeyActive
		r.Keys[i].State, r.Keys[i].Sealed = KeyRevoked, nil
		for j := range r.Keys {
			if wasActive && r.Keys[j].State == KeyNext {
				r.Keys[j].State = KeyActive
			}
		}
		return nil
	})
}

func (a *Authority) changeKeys(ctx context.Context, fn func(*KeyRing, time.Time) error) error {
	ring, revocations, err := a.store.Catalog().UpdateKeys(ctx, a.retain(), func(r *KeyRing) error {
		if err := a.openable(r); err != nil {
			return err
		}
		if err := fn(r, a.now()); err != nil {
			return err
		}
		return a.completeRing(r)
	})
	if err != nil {
		return fmt.Errorf("change signing keys: %w", err)
	}
	if err := a.installKeys(&ring); err != nil {
		return err
	}
	a.Apply(revocations...)
	return nil
}
