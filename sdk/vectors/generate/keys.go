package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"strings"
)

// The keys are made from constants: they are known to everybody and good for
// nothing but these vectors.
var (
	es1 = newEC("counterfoil vector es1")
	es2 = newEC("counterfoil vector es2")
	ed1 = ed25519.NewKeyFromSeed(seed("counterfoil vector ed1"))
	rs1 = newRSA()
)

func seed(label string) []byte {
	sum := sha256.Sum256([]byte(label))
	return sum[:]
}

func newEC(label string) *ecdsa.PrivateKey {
	return must(ecdsa.ParseRawPrivateKey(elliptic.P256(), seed(label)))
}

func newRSA() *rsa.PrivateKey {
	number := func(hex ...string) *big.Int {
		n, ok := new(big.Int).SetString(strings.Join(hex, ""), 16)
		if !ok {
			panic("a constant is not hexadecimal")
		}
		return n
	}
	p := number("fb225ccc264463169e92970c68fd878f0a91aa95fec0645ca5f74311261c8dde4cf875634e516dfa0b44fb8f1b5a3ae3301607552579adf3ea95ef7dec62de6c",
		"ecbf942613eb98654c7b1f17a1dffb5e188bd4e99cb14f2fe745f33e540e77c15ddefee99d51fd6c45e5c9334744241beb9af412c355f0166b2f2ed9bd22c1c1")
	q := number("ce030b3f6bd9fd41a7294a44388a1da7bdb62309051644eed8a78d362675e287a17a74efc09c83fbb945a44aa43b71085272e06478624df6b3d6f71720cfd6bc",
		"a83d18763ffbf9acb0c2705e61f9f2167fa6dcddda5dde7b6f10dbf6baac4f7e9ac8e9b402cb29cd115ec479717e528ce12af8f9ce28769350ca39d25efd8337")
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, Primes: []*big.Int{p, q}}
	k.D = new(big.Int).ModInverse(big.NewInt(65537), phi)
	k.Precompute()
	return k
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func ecJWK(kid string, k *ecdsa.PrivateKey) object {
	point := must(k.PublicKey.Bytes())
	return object{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:])}
}

func edJWK(kid string, k ed25519.PrivateKey) object {
	return object{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": b64(k.Public().(ed25519.PublicKey))}
}

func rsaJWK(kid, alg string, k *rsa.PrivateKey) object {
	return object{"kty": "RSA", "alg": alg, "use": "sig", "kid": kid, "n": b64(k.N.Bytes()), "e": "AQAB"}
}

func jwks() object {
	return object{"cf_version": 7, "keys": list{ecJWK("es1", es1), ecJWK("es2", es2), edJWK("ed1", ed1), rsaJWK("rs1", "RS256", rs1), rsaJWK("ps1", "PS256", rs1)}}
}

// The signatures of each algorithm over a text.

func es256(k *ecdsa.PrivateKey, text string) []byte {
	digest := sha256.Sum256([]byte(text))
	// Without a source of randomness it is RFC 6979.
	der := must(k.Sign(nil, digest[:], crypto.SHA256))
	out := make([]byte, 64)
	der = der[2:]
	for i := range 2 {
		x := bytes.TrimLeft(der[2:2+int(der[1])], "\x00")
		copy(out[32*(i+1)-len(x):], x)
		der = der[2+int(der[1]):]
	}
	return out
}

func eddsa(k ed25519.PrivateKey, text string) []byte { return ed25519.Sign(k, []byte(text)) }

func rs256(k *rsa.PrivateKey, text string) []byte {
	digest := sha256.Sum256([]byte(text))
	return must(rsa.SignPKCS1v15(nil, k, crypto.SHA256, digest[:]))
}

// ps256 is RFC 8017 section 9.1.1 with a fixed salt, since crypto/rsa draws one.
func ps256(k *rsa.PrivateKey, text string, salt []byte) []byte {
	size := (k.N.BitLen() + 6) / 8
	digest := sha256.Sum256([]byte(text))
	inner := sha256.New()
	inner.Write(make([]byte, 8))
	inner.Write(digest[:])
	inner.Write(salt)
	h := inner.Sum(nil)
	db := make([]byte, size-len(h)-1)
	db[len(db)-len(salt)-1] = 1
	copy(db[len(db)-len(salt):], salt)
	for i := range db {
		block := sha256.Sum256(binary.BigEndian.AppendUint32(bytes.Clone(h), uint32(i/32)))
		db[i] ^= block[i%32]
	}
	db[0] &= 0xff >> (8*size - (k.N.BitLen() - 1))
	m := new(big.Int).SetBytes(append(append(db, h...), 0xbc))
	return m.Exp(m, k.D, k.N).FillBytes(make([]byte, k.Size()))
}
