// Package jws reads and writes the signed form of access tokens: the compact
// serialisation of RFC 7515, and of that only what a token of ours can be.
//
// One token has one spelling here. A header carries alg, typ and kid, each
// once, and nothing else; base64url is canonical; signatures are checked over
// the text as it was received. The one thing beyond that is the second
// signature (r, n-s) that ECDSA has for every (r, s): its payload is the same,
// so identity, revocation and replay must go by claims, never by token text.
//
// There is no HMAC, no "none", no key from a header and no JSON serialisation
// in this package, so none can be reached by a forged header.
package jws

import "errors"

// Limits of a token, in bytes.
const (
	MaxToken  = 8 << 10 // the whole compact text
	MaxHeader = 1 << 10 // the decoded header
	MaxKID    = 64      // the key id
)

var (
	// ErrMalformed marks a text that is not a token of the form this package
	// reads. Parse wraps it with what is wrong; no error holds parts of a token.
	ErrMalformed = errors.New("jws: malformed token")

	// ErrSignature marks a well-formed token whose signature does not verify
	// with the given key, another key id or another algorithm included.
	ErrSignature = errors.New("jws: signature does not verify")

	// ErrKey marks a key that is refused: wrong type for its algorithm, too
	// weak, or with an unusable key id.
	ErrKey = errors.New("jws: unusable key")
)

// Alg is a signature algorithm by its name in RFC 7518 and RFC 8037.
type Alg string

// The algorithms a verifier may know. Tokens are signed with ES256 and EdDSA
// only; RS256 and PS256 are for the keys of other issuers.
const (
	ES256 Alg = "ES256"
	EdDSA Alg = "EdDSA" // with Ed25519 only
	RS256 Alg = "RS256"
	PS256 Alg = "PS256" // salt as long as the hash
)

// Known tells whether a is one of the algorithms above, spelled exactly.
func (a Alg) Known() bool {
	switch a {
	case ES256, EdDSA, RS256, PS256:
		return true
	}
	return false
}

// ValidKID tells whether kid can name a key: 1 to 64 of A-Z a-z 0-9 _ and -.
func ValidKID(kid string) bool {
	if kid == "" || len(kid) > MaxKID {
		return false
	}
	for i := 0; i < len(kid); i++ {
		switch c := kid[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
