package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/counterfoil/counterfoil/internal/jws"
)

const (
	issuer   = "https://app.example"
	audience = "orders"
	kid      = "c29tZSBrZXk"
)

// key signs with one algorithm, and knows what that costs at least.
type key struct {
	alg     jws.Alg
	private crypto.Signer
}

func newKey(b *testing.B, alg jws.Alg) key {
	k := key{alg: alg}
	var err error
	switch alg {
	case jws.ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jws.EdDSA:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	case jws.RS256:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = errors.New("no key for " + string(alg))
	}
	if err != nil {
		b.Fatal(err)
	}
	return k
}

// sign makes the bare signature, in the form that the standard library checks.
func (k key) sign(message []byte) ([]byte, error) {
	if k.alg == jws.EdDSA {
		return k.private.Sign(nil, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	return k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
}

var errBadSignature = errors.New("bad signature")

// check makes the bare check of a signature made by sign.
func (k key) check(message, signature []byte) error {
	ok := false
	switch public := k.private.Public().(type) {
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		ok = ecdsa.VerifyASN1(public, digest[:], signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(public, message, signature)
	case *rsa.PublicKey:
		digest := sha256.Sum256(message)
		ok = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	}
	if !ok {
		return errBadSignature
	}
	return nil
}
