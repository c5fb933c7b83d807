// Package jwk reads and writes the key sets (JWKS, RFC 7517) by which verifiers
// learn the public keys of an issuer.
package jwk

import (
	"errors"
	"fmt"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Limits of a key set.
const (
	MaxSet  = 256 << 10 // bytes
	MaxKeys = 100
)

// ErrSet marks a key set that is refused as a whole. It is wrapped with what is
// wrong and with the place of the key, never with key material.
var ErrSet = errors.New("jwk: refused key set")

// Set is the public keys of one issuer at one time.
type Set struct {
	// Version is the member cf_version: it grows with every change, and a
	// verifier never goes back. 0 when absent.
	Version int64
	Keys    []*jws.PublicKey // at most one per key id, in document order

	// Skipped tells of keys that are none of ours, for logs. MarshalSet does
	// not write them.
	Skipped []Skipped
}

// Skipped is a key that a verifier of this version has no use for.
type Skipped struct {
	KID    string // empty if the key has none
	Reason string
}

// ParseSet reads a key set. A key is skipped when its kty, crv, alg or use is
// unknown here or its alg is missing, since later issuers may publish such keys
// and a key without an algorithm could be taken for two (RFC 8725 section 3.1).
// The whole set is refused when a key for one of our algorithms is malformed,
// weak, or contradicts itself, when two keys share a key id, and when any key
// holds private or symmetric material. Errors wrap ErrSet.
func ParseSet(data []byte) (Set, error) {
	if len(data) > MaxSet {
		return Set{}, refuse("longer than %d bytes", MaxSet)
	}
	var set Set
	var keys []byte
	err := strictjson.Object(data, func(name string, value []byte) error {
		var err error
		switch name {
		case "keys":
			keys = value
		case "cf_version":
			if set.Version, err = strictjson.Int(value); err == nil && set.Version < 0 {
				err = errors.New("negative")
			}
			if err != nil {
				return fmt.Errorf("cf_version: %w", err)
			}
		default:
			if folded := strictjson.FoldsTo(name); folded == "keys" || folded == "cf_version" {
				return fmt.Errorf("a member differs from %s only by case", folded)
			}
		}
		return nil
	})
	if err != nil {
		return Set{}, refuse("%w", err)
	}
	if keys == nil {
		return Set{}, refuse("keys is missing")
	}
	seen := make(map[string]bool)
	index := 0
	err = strictjson.Array(keys, func(value []byte) error {
		if index == MaxKeys {
			return fmt.Errorf("more than %d keys", MaxKeys)
		}
		var k key
		public, skip, err := k.parse(value)
		if err == nil && k.kid != "" {
			if seen[k.kid] {
				err = errors.New("kid: the same as that of another key")
			}
			seen[k.kid] = true
		}
		switch {
		case err != nil:
			return fmt.Errorf("keys[%d]: %w", index, err)
		case skip != "":
			set.Skipped = append(set.Skipped, Skipped{k.kid, skip})
		default:
			set.Keys = append(set.Keys, public)
		}
		index++
		return nil
	})
	if err != nil {
		return Set{}, refuse("%w", err)
	}
	return set, nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrSet}, args...)...)
}
