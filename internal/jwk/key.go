package jwk

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// key is one JWK as it was read. Members that say nothing about a signature
// key of ours (x5c, x5u and the like) are not looked at; nothing is fetched.
type key struct {
	kty, use, alg, kid, crv string
	x, y, n, e              string
	hasUse, hasAlg, hasOps  bool
	ops                     []string
}

// parse reads a JWK. It gives a key, or the reason to skip it, or an error.
func (k *key) parse(data []byte) (public *jws.PublicKey, skip string, err error) {
	if err := strictjson.Object(data, k.member); err != nil {
		return nil, "", err
	}
	if k.kty == "" {
		return nil, "", errors.New("kty: missing or empty")
	}
	if k.kty == "oct" {
		return nil, "", errors.New("kty: a symmetric key in a public key set")
	}
	alg := jws.Alg(k.alg)
	switch {
	case !k.hasAlg:
		return nil, "no alg", nil
	case !alg.Known():
		return nil, "unknown alg", nil
	case k.kty == "OKP" && alg == jws.EdDSA && k.crv != "Ed25519" && k.crv != "":
		return nil, "unknown crv", nil
	}
	if skip, err := k.purpose(); skip != "" || err != nil {
		return nil, skip, err
	}
	pub, err := k.material(alg)
	if err != nil {
		return nil, "", err
	}
	public, err = jws.NewPublicKey(k.kid, alg, pub)
	return public, "", err
}

// member takes one member of a JWK.
func (k *key) member(name string, value []byte) error {
	var target *string
	switch name {
	case "kty":
		target = &k.kty
	case "use":
		target, k.hasUse = &k.use, true
	case "alg":
		target, k.hasAlg = &k.alg, true
	case "kid":
		target = &k.kid
	case "crv":
		target = &k.crv
	case "x":
		target = &k.x
	case "y":
		target = &k.y
	case "n":
		target = &k.n
	case "e":
		target = &k.e
	case "key_ops":
		k.hasOps = true
		var err error
		if k.ops, err = strictjson.Strings(value); err != nil {
			return fmt.Errorf("key_ops: %w", err)
		}
		return nil
	case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
		return fmt.Errorf("%s: private or symmetric key material in a public key set", name)
	default:
		switch folded := strictjson.FoldsTo(name); folded {
		case "kty", "use", "alg", "kid", "crv", "x", "y", "n", "e", "key_ops",
			"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
			return fmt.Errorf("a member differs from %s only by case", folded)
		}
		return nil
	}
	var err error
	if *target, err = strictjson.String(value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// purpose checks use and key_ops: a key may verify signatures, and nothing else.
func (k *key) purpose() (skip string, err error) {
	verifies := len(k.ops) == 1 && k.ops[0] == "verify"
	signature := k.use == "sig"
	switch {
	case k.hasUse && k.hasOps && signature != verifies:
		return "", errors.New("use and key_ops contradict each other")
	case k.hasUse && !signature:
		return "not for signatures (use)", nil
	case k.hasOps && !verifies:
		return "not for verification alone (key_ops)", nil
	}
	return "", nil
}

// material decodes the key itself; kty and crv must be those of alg.
func (k *key) material(alg jws.Alg) (crypto.PublicKey, error) {
	want := map[jws.Alg][2]string{jws.ES256: {"EC", "P-256"}, jws.EdDSA: {"OKP", "Ed25519"}, jws.RS256: {"RSA"}, jws.PS256: {"RSA"}}[alg]
	switch {
	case k.kty != want[0]:
		return nil, fmt.Errorf("kty: %s wants %s", alg, want[0])
	case k.crv != want[1]:
		return nil, fmt.Errorf("crv: %s wants %q", alg, want[1])
	}
	switch alg {
	case jws.ES256:
		const size = 32
		x, err := decode("x", k.x, size)
		if err != nil {
			return nil, err
		}
		y, err := decode("y", k.y, size)
		if err != nil {
			return nil, err
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			return nil, errors.New("x, y: not a point on P-256")
		}
		return pub, nil
	case jws.EdDSA:
		x, err := decode("x", k.x, ed25519.PublicKeySize)
		return ed25519.PublicKey(x), err
	default:
		n, err := decode("n", k.n, 0)
		if err != nil {
			return nil, err
		}
		if n[0] == 0 {
			return nil, errors.New("n: leading zero byte")
		}
		// The encoding of 65537, the only exponent that jws takes.
		if k.e != exponent {
			return nil, errors.New("e: the exponent is not 65537")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, nil
	}
}

const exponent = "AQAB"

// base64url is canonical base64url: no padding, unused bits zero.
var base64url = base64.RawURLEncoding.Strict()

// decode reads canonical base64url of size bytes, or of any number but none if
// size is 0.
func decode(name, text string, size int) ([]byte, error) {
	if text == "" {
		return nil, fmt.Errorf("%s: missing or empty", name)
	}
	out, err := base64url.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // encoding/base64 skips line ends
		return nil, fmt.Errorf("%s: not base64url", name)
	}
	if size != 0 && len(out) != size {
		return nil, fmt.Errorf("%s: %d bytes, want %d", name, len(out), size)
	}
	return out, nil
}

// ParseProofKey reads the public key that a proof brings along: on P-256, for
// ES256. It has no key id; the one it gets here names nothing.
func ParseProofKey(data []byte) (*jws.PublicKey, error) {
	var k key
	if err := strictjson.Object(data, k.member); err != nil {
		return nil, err
	}
	if k.hasAlg && jws.Alg(k.alg) != jws.ES256 {
		return nil, errors.New("alg: want ES256")
	}
	if skip, err := k.purpose(); skip != "" || err != nil {
		return nil, errors.New("use, key_ops: want a key to verify with")
	}
	pub, err := k.material(jws.ES256)
	if err != nil {
		return nil, err
	}
	return jws.NewPublicKey("proof", jws.ES256, pub)
}
