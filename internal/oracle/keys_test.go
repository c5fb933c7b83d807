package oracle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil/internal/jws"
)

//go:embed testdata/rsa-test-only.pem
var rsaPEM []byte

var base64url = base64.RawURLEncoding.Strict()

// issuer holds a fixed key of one algorithm, so that texts in a fuzzing corpus
// keep their meaning.
type issuer struct {
	alg    jws.Alg
	key    crypto.Signer
	public *jws.PublicKey
}

func (i issuer) kid() string { return i.public.KID() }

func (i issuer) header() string {
	return `{"alg":"` + string(i.alg) + `","kid":"` + i.kid() + `","typ":"at+jwt"}`
}

// sign makes a token of any two texts. The same texts give the same token, in
// every process that takes part in fuzzing.
func (i issuer) sign(header, payload []byte) string {
	text := base64url.EncodeToString(header) + "." + base64url.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	switch i.alg {
	case jws.EdDSA:
		sig, err = i.key.Sign(nil, []byte(text), crypto.Hash(0))
	case jws.ES256:
		var der []byte
		if der, err = i.key.Sign(nil, digest[:], crypto.SHA256); err == nil {
			var v struct{ R, S *big.Int }
			if _, err = asn1.Unmarshal(der, &v); err == nil {
				sig = make([]byte, 64)
				v.R.FillBytes(sig[:32])
				v.S.FillBytes(sig[32:])
			}
		}
	case jws.RS256:
		sig, err = i.key.Sign(nil, digest[:], crypto.SHA256)
	case jws.PS256:
		sig, err = i.key.Sign(zeros{}, digest[:], &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256})
	}
	if err != nil {
		panic(err)
	}
	return text + "." + base64url.EncodeToString(sig)
}

// zeros is the source of the salt for PS256.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

var issuers = sync.OnceValue(func() []issuer {
	ed := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	ec, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(rsaPEM)
	rk, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	var all []issuer
	for _, i := range []issuer{{alg: jws.EdDSA, key: ed}, {alg: jws.ES256, key: ec}, {alg: jws.RS256, key: rk.(crypto.Signer)}, {alg: jws.PS256, key: rk.(crypto.Signer)}} {
		if i.public, err = jws.NewPublicKey("k-"+string(i.alg), i.alg, i.key.Public()); err != nil {
			panic(err)
		}
		all = append(all, i)
	}
	return all
})

// twin gives the second signature of an ES256 token: (r, n-s) for (r, s).
func twin(t testing.TB, token string) string {
	t.Helper()
	dot := strings.LastIndexByte(token, '.')
	sig, err := base64url.DecodeString(token[dot+1:])
	if err != nil || len(sig) != 64 {
		t.Fatalf("no ES256 token: %s", token)
	}
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	return token[:dot+1] + base64url.EncodeToString(sig)
}
