package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
)

// Sizes of RSA keys, in bits. The upper one bounds what a key set can make a
// verifier compute.
const (
	MinRSA = 2048
	MaxRSA = 8192
)

// PublicKey is a key bound to one key id and one algorithm. It does not change
// and is safe for concurrent use.
type PublicKey struct {
	kid string
	alg Alg

	ec  *ecdsa.PublicKey
	ed  ed25519.PublicKey
	rsa *rsa.PublicKey
}

// NewPublicKey binds pub to kid and alg. It takes *ecdsa.PublicKey on P-256 for
// ES256, ed25519.PublicKey for EdDSA, and *rsa.PublicKey of 2048 to 8192 bits
// with exponent 65537 for RS256 and PS256, and copies it. Errors wrap ErrKey.
func NewPublicKey(kid string, alg Alg, pub crypto.PublicKey) (*PublicKey, error) {
	if !ValidKID(kid) {
		return nil, fmt.Errorf("%w: kid is not 1 to %d of A-Z a-z 0-9 _ -", ErrKey, MaxKID)
	}
	k := &PublicKey{kid: kid, alg: alg}
	var err error
	switch alg {
	case ES256:
		k.ec, err = checkEC(pub)
	case EdDSA:
		k.ed, err = checkEd25519(pub)
	case RS256, PS256:
		k.rsa, err = checkRSA(pub)
	default:
		return nil, fmt.Errorf("%w: alg is not one of ES256, EdDSA, RS256, PS256", ErrKey)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// KID returns the key id.
func (k *PublicKey) KID() string { return k.kid }

// Alg returns the one algorithm the key verifies.
func (k *PublicKey) Alg() Alg { return k.alg }

// Public returns the key itself, of one of the types NewPublicKey takes. The
// caller must not change it.
func (k *PublicKey) Public() crypto.PublicKey {
	switch k.alg {
	case ES256:
		return k.ec
	case EdDSA:
		return k.ed
	default:
		return k.rsa
	}
}

func checkEC(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	p, ok := pub.(*ecdsa.PublicKey)
	if !ok || p == nil || p.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: ES256 wants an ECDSA key on P-256", ErrKey)
	}
	point, err := p.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: not a point on P-256", ErrKey)
	}
	p, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("%w: not a point on P-256", ErrKey)
	}
	return p, nil
}

func checkEd25519(pub crypto.PublicKey) (ed25519.PublicKey, error) {
	p, ok := pub.(ed25519.PublicKey)
	if !ok || len(p) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: EdDSA wants an Ed25519 key of %d bytes", ErrKey, ed25519.PublicKeySize)
	}
	if smallOrder(p) {
		return nil, fmt.Errorf("%w: Ed25519 key of small order", ErrKey)
	}
	return bytes.Clone(p), nil
}

func checkRSA(pub crypto.PublicKey) (*rsa.PublicKey, error) {
	p, ok := pub.(*rsa.PublicKey)
	switch {
	case !ok || p == nil || p.N == nil || p.N.Sign() <= 0:
		return nil, fmt.Errorf("%w: RS256 and PS256 want an RSA key", ErrKey)
	case p.N.BitLen() < MinRSA || p.N.BitLen() > MaxRSA:
		return nil, fmt.Errorf("%w: RSA key of %d bits, want %d to %d", ErrKey, p.N.BitLen(), MinRSA, MaxRSA)
	case p.E != 65537:
		return nil, fmt.Errorf("%w: RSA exponent is not 65537", ErrKey)
	case p.N.Bit(0) == 0:
		return nil, fmt.Errorf("%w: RSA modulus is even", ErrKey)
	case roca(p.N):
		return nil, fmt.Errorf("%w: RSA key of the ROCA kind (CVE-2017-15361)", ErrKey)
	}
	return &rsa.PublicKey{N: new(big.Int).Set(p.N), E: p.E}, nil
}

// Verify checks the signature over the text that Parse was given. It refuses a
// key whose id or algorithm is not the header's. Errors wrap ErrSignature.
func (m *Message) Verify(k *PublicKey) error {
	switch {
	case k == nil || k.kid == "":
		return fmt.Errorf("%w: no key", ErrSignature)
	case m.Header.Kid != k.kid:
		return fmt.Errorf("%w: another key id", ErrSignature)
	case m.Header.Alg != k.alg:
		return fmt.Errorf("%w: another algorithm than the key's", ErrSignature)
	}
	if !k.Signed(m.signed, m.signature) {
		return ErrSignature
	}
	return nil
}

// Signed tells whether signature is one by k over text: the arithmetic below
// Message.Verify, for test vectors that are no tokens.
func (k *PublicKey) Signed(text string, signature []byte) bool {
	switch k.alg {
	case ES256:
		return verifyES256(k.ec, text, signature)
	case EdDSA:
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k.ed, []byte(text), signature)
	case RS256:
		digest := sha256.Sum256([]byte(text))
		return len(signature) == k.rsa.Size() &&
			rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, digest[:], signature) == nil
	case PS256:
		digest := sha256.Sum256([]byte(text))
		return len(signature) == k.rsa.Size() &&
			rsa.VerifyPSS(k.rsa, crypto.SHA256, digest[:], signature, &pssOptions) == nil
	}
	return false
}

// The salt length is fixed, not read from the signature.
var pssOptions = rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
