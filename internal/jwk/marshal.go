package jwk

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"strconv"

	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// MarshalSet writes set as a JWKS document: public members only, keys in their
// order in set, the same bytes for the same set. A Version of 0 is left out.
func MarshalSet(set Set) []byte {
	out := []byte(`{"keys":[`)
	for i, k := range set.Keys {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"kid":`...)
		out = strictjson.AppendString(out, k.KID())
		out = append(out, `,"use":"sig","alg":`...)
		out = strictjson.AppendString(out, string(k.Alg()))
		members, err := public(k.Public())
		if err != nil {
			panic(err) // jws.NewPublicKey takes no such key
		}
		for _, m := range members {
			out = append(out, ',')
			out = m.append(out)
		}
		out = append(out, '}')
	}
	out = append(out, ']')
	if set.Version != 0 {
		out = append(out, `,"cf_version":`...)
		out = strconv.AppendInt(out, set.Version, 10)
	}
	return append(out, '}')
}

// Thumbprint returns the RFC 7638 SHA-256 thumbprint of pub in base64url: 43
// characters that serve as its key id, so that no id is ever used twice. It
// takes Ed25519 keys, ECDSA keys on P-256 and RSA keys.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	members, err := public(pub)
	if err != nil {
		return "", err
	}
	// The members that RFC 7638 counts are just the public ones, by name.
	text := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			text = append(text, ',')
		}
		text = m.append(text)
	}
	sum := sha256.Sum256(append(text, '}'))
	return base64url.EncodeToString(sum[:]), nil
}

type member struct{ name, value string }

func (m member) append(dst []byte) []byte {
	dst = strictjson.AppendString(dst, m.name)
	return strictjson.AppendString(append(dst, ':'), m.value)
}

// public gives the members that make up a public key, in the order of names.
func public(pub crypto.PublicKey) ([]member, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil || k.Curve.Params().Name != "P-256" {
			return nil, fmt.Errorf("jwk: ECDSA key that is not on P-256")
		}
		point, err := k.Bytes() // 4, x, y
		if err != nil {
			return nil, fmt.Errorf("jwk: %w", err)
		}
		x, y := point[1:33], point[33:]
		return []member{{"crv", "P-256"}, {"kty", "EC"}, {"x", base64url.EncodeToString(x)}, {"y", base64url.EncodeToString(y)}}, nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("jwk: Ed25519 key of %d bytes", len(k))
		}
		return []member{{"crv", "Ed25519"}, {"kty", "OKP"}, {"x", base64url.EncodeToString(k)}}, nil
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.Sign() <= 0 || k.E <= 0 {
			return nil, fmt.Errorf("jwk: RSA key without modulus or exponent")
		}
		e := big.NewInt(int64(k.E)).Bytes()
		return []member{{"e", base64url.EncodeToString(e)}, {"kty", "RSA"}, {"n", base64url.EncodeToString(k.N.Bytes())}}, nil
	}
	return nil, fmt.Errorf("jwk: unsupported key type %T", pub)
}
