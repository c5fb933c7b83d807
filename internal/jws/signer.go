package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Signer signs payloads under one key id, algorithm and typ. It is safe for
// concurrent use if its key is; the keys of the standard library are.
type Signer struct {
	alg    Alg
	key    crypto.Signer
	prefix string // the encoded header and its dot
}

// NewSigner makes a Signer for ES256 or EdDSA. The key may live elsewhere (a
// KMS or HSM behind crypto.Signer), as long as its public half is one that
// NewPublicKey takes for alg. Errors about the key wrap ErrKey.
func NewSigner(kid string, alg Alg, typ string, key crypto.Signer) (*Signer, error) {
	if alg != ES256 && alg != EdDSA {
		return nil, fmt.Errorf("%w: tokens are signed with ES256 or EdDSA, not %q", ErrKey, string(alg))
	}
	if key == nil {
		return nil, fmt.Errorf("%w: no key", ErrKey)
	}
	// A nil pointer in key is refused before Public would look into it.
	if k, ok := key.(*ecdsa.PrivateKey); ok && k == nil {
		return nil, fmt.Errorf("%w: no key", ErrKey)
	}
	if k, ok := key.(ed25519.PrivateKey); ok && len(k) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: Ed25519 private key of %d bytes", ErrKey, len(k))
	}
	if _, err := NewPublicKey(kid, alg, key.Public()); err != nil {
		return nil, err
	}
	header := strictjson.AppendString([]byte(`{"alg":`), string(alg))
	header = strictjson.AppendString(append(header, `,"kid":`...), kid)
	header = strictjson.AppendString(append(header, `,"typ":`...), typ)
	header = append(header, '}')
	if typ == "" || len(header) > MaxHeader {
		return nil, errors.New("jws: typ is empty or too long")
	}
	return &Signer{alg: alg, key: key, prefix: base64url.EncodeToString(header) + "."}, nil
}

// Sign returns the token with the given payload. The payload is signed as it
// is; what a reader demands of it (one strict JSON object) is the caller's to
// keep. A token longer than MaxToken is an error, since no verifier takes it.
func (s *Signer) Sign(payload []byte) (string, error) {
	const signature = 64 // bytes, for either algorithm
	size := len(s.prefix) + base64url.EncodedLen(len(payload)) + 1 + base64url.EncodedLen(signature)
	switch {
	case len(payload) == 0:
		return "", errors.New("jws: empty payload")
	case size > MaxToken:
		return "", fmt.Errorf("jws: token of %d bytes, at most %d are allowed: make the claims smaller", size, MaxToken)
	}
	token := make([]byte, 0, size)
	token = append(token, s.prefix...)
	token = base64url.AppendEncode(token, payload)

	var raw [signature]byte
	sig := raw[:0]
	switch s.alg {
	case ES256:
		digest := sha256.Sum256(token)
		der, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return "", fmt.Errorf("jws: sign: %w", err)
		}
		if sig, err = appendFixed(sig, der); err != nil {
			return "", err
		}
	case EdDSA:
		var err error
		if sig, err = s.key.Sign(rand.Reader, token, crypto.Hash(0)); err != nil {
			return "", fmt.Errorf("jws: sign: %w", err)
		}
		if len(sig) != signature {
			return "", errors.New("jws: the key gave no Ed25519 signature")
		}
	}
	token = append(token, '.')
	return string(base64url.AppendEncode(token, sig)), nil
}
