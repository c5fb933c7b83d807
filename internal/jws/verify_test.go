package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// withSignature replaces the signature of a token.
func withSignature(token string, sig []byte) string {
	return token[:strings.LastIndexByte(token, '.')+1] + base64url.EncodeToString(sig)
}

func signatureOf(t testing.TB, token string) []byte {
	t.Helper()
	m, err := Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(m.signature)
}

func refused(t *testing.T, k testKey, name, token string) {
	t.Helper()
	if _, err := k.read(token); !errors.Is(err, ErrSignature) {
		t.Errorf("%s: %s: got %v", k.alg, name, err)
	}
}

func TestEveryBitOfTheSignatureCounts(t *testing.T) {
	for _, k := range testKeys() {
		token := k.token(t)
		sig := signatureOf(t, token)
		for bit := range 8 * len(sig) {
			sig[bit/8] ^= 1 << (bit % 8)
			refused(t, k, "flipped bit", withSignature(token, sig))
			sig[bit/8] ^= 1 << (bit % 8)
		}
		for n := 1; n < len(sig); n += 7 {
			refused(t, k, "cut short", withSignature(token, sig[:n]))
			refused(t, k, "cut short at the front", withSignature(token, sig[n:]))
		}
		refused(t, k, "zero byte after", withSignature(token, append(slices.Clone(sig), 0)))
		refused(t, k, "zero byte before", withSignature(token, append([]byte{0}, sig...)))
		refused(t, k, "all zero", withSignature(token, make([]byte, len(sig))))
		refused(t, k, "the signature of another payload", withSignature(token, signatureOf(t, k.sign(t, k.header(), `{}`))))
	}
}

// SEC-41, SEC-42: the key decides the algorithm, never the header.
func TestSEC41KeyDecides(t *testing.T) {
	for _, signed := range testKeys() {
		for _, given := range testKeys() {
			// A header that names the given key, signed with another algorithm.
			forged := signed.sign(t, `{"alg":"`+string(signed.alg)+`","kid":"`+given.public.KID()+`","typ":"at+jwt"}`, testPayload)
			m, err := Parse(forged)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(given.public); (err == nil) != (signed.alg == given.alg) {
				t.Errorf("%s token with the %s key: %v", signed.alg, given.alg, err)
			}
			// A header that names the algorithm of the given key too.
			if signed.alg != given.alg {
				refused(t, given, "signed with "+string(signed.alg), signed.sign(t, given.header(), testPayload))
			}
		}
	}
	// SEC-47: the right key under another id.
	k := testKeys()[ES256]
	other, err := NewPublicKey("other", ES256, k.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(k.token(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []*PublicKey{other, nil, {}} {
		if err := m.Verify(key); !errors.Is(err, ErrSignature) {
			t.Errorf("%+v: %v", key, err)
		}
	}
	if err := (&Message{}).Verify(k.public); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
	if err := (&Message{}).Verify(&PublicKey{}); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
}

// SEC-52: r and s are 32 bytes each and within 1..n-1, and DER is refused.
func TestSEC52ECDSA(t *testing.T) {
	k := testKeys()[ES256]
	token := k.token(t)
	sig := signatureOf(t, token)
	n := elliptic.P256().Params().N
	pair := func(r, s *big.Int) []byte {
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	edge := []*big.Int{big.NewInt(0), big.NewInt(1), new(big.Int).Sub(n, big.NewInt(1)), n, new(big.Int).Add(n, big.NewInt(1)), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))}
	for _, a := range edge {
		refused(t, k, "r at the edge", withSignature(token, pair(a, s)))
		refused(t, k, "s at the edge", withSignature(token, pair(r, a)))
		for _, b := range edge {
			refused(t, k, "r and s at the edge", withSignature(token, pair(a, b)))
		}
	}
	refused(t, k, "r and s swapped", withSignature(token, pair(s, r)))
	// r + n is the same modulo n; a small r is needed for it to fit.
	if sum := new(big.Int).Add(r, n); sum.BitLen() <= 256 {
		refused(t, k, "r not reduced", withSignature(token, pair(sum, s)))
	}
	digest := sha256.Sum256([]byte(token[:strings.LastIndexByte(token, '.')]))
	der, err := k.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, k, "DER", withSignature(token, der))
	refused(t, k, "DER cut to 64", withSignature(token, append(der, 0)[:64]))
	wide := make([]byte, 96)
	copy(wide[16:], sig[:32])
	copy(wide[64:], sig[32:])
	refused(t, k, "padded halves", withSignature(token, wide))
}

// SEC-53: the second signature that ECDSA has for every one is taken, and says
// the same.
func TestSEC53Twin(t *testing.T) {
	k := testKeys()[ES256]
	token := k.token(t)
	sig := signatureOf(t, token)
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	twin := withSignature(token, sig)
	if twin == token {
		t.Fatal("the twin is the token itself")
	}
	m, err := k.read(twin)
	if err != nil || string(m.Payload) != testPayload {
		t.Fatalf("%v %s", err, m.Payload)
	}
}

// SEC-55: the salt is as long as the hash; other hashes and paddings fail too.
func TestSEC55RSA(t *testing.T) {
	k := testKeys()[PS256]
	token := k.token(t)
	text := []byte(token[:strings.LastIndexByte(token, '.')])
	digest, wide := sha256.Sum256(text), sha512.Sum512(text)
	for _, salt := range []int{0, 1, 20, 31, 33, 64} {
		if salt == 0 {
			salt = rsa.PSSSaltLengthAuto // as long as fits
		}
		sig, err := k.key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, k, "salt length", withSignature(token, sig))
	}
	sig, err := k.key.Sign(rand.Reader, wide[:], &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, k, "SHA-512", withSignature(token, sig))
	k = testKeys()[RS256]
	plain := k.token(t)
	wide = sha512.Sum512([]byte(plain[:strings.LastIndexByte(plain, '.')]))
	if sig, err = k.key.Sign(rand.Reader, wide[:], crypto.SHA512); err != nil {
		t.Fatal(err)
	}
	refused(t, k, "SHA-512", withSignature(plain, sig))
	refused(t, testKeys()[RS256], "PS256 signature", withSignature(testKeys()[RS256].token(t), signatureOf(t, token)))
}

func TestSEC45WeakKeys(t *testing.T) {
	rk := testKeys()[RS256].key.Public().(*rsa.PublicKey)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := testKeys()[ES256].key.Public().(*ecdsa.PublicKey)
	off := new(big.Int).SetBytes(slices.Repeat([]byte{1}, 32))
	odd := func(bits uint) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return n.Add(n, big.NewInt(1))
	}
	// A modulus that is 65537^k modulo every small prime.
	product := big.NewInt(1)
	for p := int64(3); p < 168; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	weak := new(big.Int).Exp(big.NewInt(65537), big.NewInt(12345), product)
	for step := new(big.Int).Lsh(product, 2048-uint(product.BitLen())); weak.BitLen() < 2048 || weak.Bit(0) == 0; {
		weak.Add(weak, step.Add(step, product))
	}
	for _, c := range []struct {
		name string
		alg  Alg
		pub  crypto.PublicKey
	}{
		{"nil", ES256, nil}, {"nil", EdDSA, nil}, {"nil", RS256, nil},
		{"nil pointer", ES256, (*ecdsa.PublicKey)(nil)}, {"nil pointer", PS256, (*rsa.PublicKey)(nil)},
		{"no curve", ES256, &ecdsa.PublicKey{}}, {"P-384", ES256, p384.Public()}, {"off the curve", ES256, badPoint(off, off)},
		{"point at infinity", ES256, badPoint(new(big.Int), new(big.Int))},
		{"coordinate beyond the field", ES256, beyondField(ec)},
		{"no modulus", RS256, &rsa.PublicKey{E: 65537}}, {"negative modulus", RS256, &rsa.PublicKey{N: new(big.Int).Neg(rk.N), E: 65537}},
		{"2047 bits", RS256, &rsa.PublicKey{N: odd(2047), E: 65537}}, {"8193 bits", PS256, &rsa.PublicKey{N: odd(8193), E: 65537}},
		{"even", RS256, &rsa.PublicKey{N: new(big.Int).Add(rk.N, big.NewInt(1)), E: 65537}},
		{"e=1", RS256, &rsa.PublicKey{N: rk.N, E: 1}}, {"e=3", PS256, &rsa.PublicKey{N: rk.N, E: 3}}, {"e even", RS256, &rsa.PublicKey{N: rk.N, E: 65536}},
		{"ROCA", RS256, &rsa.PublicKey{N: weak, E: 65537}},
		{"short", EdDSA, ed25519.PublicKey(make([]byte, 31))}, {"long", EdDSA, ed25519.PublicKey(make([]byte, 33))},
		{"a byte slice", EdDSA, []byte(make([]byte, 32))}, {"SEC-43 bytes as a secret", "HS256", []byte(strings.Repeat("k", 32))},
		{"private", EdDSA, testKeys()[EdDSA].key}, {"other type", ES256, testKeys()[EdDSA].key.Public()}, {"other type", RS256, ec}, {"other type", EdDSA, rk},
		{"SEC-41 none", "none", ec}, {"SEC-43 HS256", "HS256", rk}, {"no alg", "", ec},
	} {
		if k, err := NewPublicKey("k", c.alg, c.pub); !errors.Is(err, ErrKey) || k != nil {
			t.Errorf("%s %s: got %v", c.alg, c.name, err)
		}
	}
	for _, kid := range []string{"", strings.Repeat("k", MaxKID+1), "a b", "a.b", "k\x00", "ké", "a/b", "a="} {
		if _, err := NewPublicKey(kid, ES256, ec); !errors.Is(err, ErrKey) {
			t.Errorf("kid %q: %v", kid, err)
		}
		if _, err := NewSigner(kid, ES256, "at+jwt", testKeys()[ES256].key); !errors.Is(err, ErrKey) {
			t.Errorf("kid %q: %v", kid, err)
		}
	}
	if _, err := NewPublicKey(strings.Repeat("k", MaxKID), ES256, ec); err != nil {
		t.Error(err)
	}
}

// SEC-45: with a key of small order, one signature fits many messages; so such
// keys are refused in every spelling.
func TestSEC45SmallOrder(t *testing.T) {
	// The neutral point as R and 0 as S.
	forged := append([]byte{1}, make([]byte, 63)...)
	for _, y := range smallOrderY {
		for _, sign := range []byte{0, 0x80} {
			pub := ed25519.PublicKey(slices.Clone(y[:]))
			pub[31] |= sign
			fits := 0
			for i := range 200 {
				if ed25519.Verify(pub, []byte{byte(i)}, forged) {
					fits++
				}
			}
			t.Logf("%x: the forgery fits %d of 200 messages", pub, fits)
			if _, err := NewPublicKey("k", EdDSA, pub); !errors.Is(err, ErrKey) {
				t.Errorf("%x: %v", pub, err)
			}
			if fits == 0 && sign == 0 {
				t.Errorf("%x is in the list but is not of small order", pub)
			}
		}
	}
}

// A key that was handed in may change afterwards; ours does not.
func TestKeysAreCopied(t *testing.T) {
	k := testKeys()[EdDSA]
	pub := slices.Clone(k.key.Public().(ed25519.PublicKey))
	public, err := NewPublicKey(k.public.KID(), EdDSA, pub)
	if err != nil {
		t.Fatal(err)
	}
	pub[0] ^= 1
	m, err := Parse(k.token(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(public); err != nil {
		t.Fatal(err)
	}
}

// badPoint is a P-256 key with coordinates that no sound constructor gives.
func badPoint(x, y *big.Int) *ecdsa.PublicKey {
	//lint:ignore SA1019 the coordinates are wrong on purpose
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y}
}

// beyondField is the key of k, with the x coordinate written modulo nothing.
func beyondField(k *ecdsa.PublicKey) *ecdsa.PublicKey {
	//lint:ignore SA1019 the coordinates are wrong on purpose
	return badPoint(new(big.Int).Add(k.X, k.Params().P), k.Y)
}
