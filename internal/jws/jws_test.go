package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
)

const testPayload = `{"iss":"https://app.example","sub":"u1","aud":"orders"}`

// testKey is a private key with everything around it.
type testKey struct {
	alg    Alg
	key    crypto.Signer
	public *PublicKey
}

var testKeys = sync.OnceValue(func() map[Alg]testKey {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	rk, err := rsa.GenerateKey(rand.Reader, MinRSA)
	if err != nil {
		panic(err)
	}
	keys := map[Alg]testKey{}
	for alg, key := range map[Alg]crypto.Signer{ES256: ec, EdDSA: ed, RS256: rk, PS256: rk} {
		public, err := NewPublicKey("k-"+string(alg), alg, key.Public())
		if err != nil {
			panic(err)
		}
		keys[alg] = testKey{alg, key, public}
	}
	return keys
})

// sign signs any header and payload, well-formed or not.
func (k testKey) sign(t testing.TB, header, payload string) string {
	t.Helper()
	return k.signText(t, base64url.EncodeToString([]byte(header))+"."+base64url.EncodeToString([]byte(payload)))
}

// signText appends the signature over text to it.
func (k testKey) signText(t testing.TB, text string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	switch k.alg {
	case EdDSA:
		sig, err = k.key.Sign(rand.Reader, []byte(text), crypto.Hash(0))
	case ES256:
		if sig, err = k.key.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
			sig, err = appendFixed(nil, sig)
		}
	case RS256:
		sig, err = k.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	case PS256:
		sig, err = k.key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256})
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64url.EncodeToString(sig)
}

func (k testKey) header() string {
	return `{"alg":"` + string(k.alg) + `","kid":"` + k.public.KID() + `","typ":"at+jwt"}`
}

func (k testKey) token(t testing.TB) string {
	t.Helper()
	return k.sign(t, k.header(), testPayload)
}

// read is what a verifier does.
func (k testKey) read(token string) (Message, error) {
	m, err := Parse(token)
	if err != nil {
		return m, err
	}
	return m, m.Verify(k.public)
}

func TestReadsWhatItShould(t *testing.T) {
	for alg, k := range testKeys() {
		m, err := k.read(k.token(t))
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if want := (Header{alg, "at+jwt", k.public.KID()}); m.Header != want || string(m.Payload) != testPayload {
			t.Fatalf("%s: got %+v %s", alg, m.Header, m.Payload)
		}
		// Order of members, white space and escapes are the issuer's choice:
		// they are under the signature.
		if _, err := k.read(k.sign(t, `{ "typ":"\u0061t+jwt", "kid":"`+k.public.KID()+"\",\n\"alg\":\""+string(alg)+`"}`, testPayload)); err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
	}
}

func TestSigner(t *testing.T) {
	for _, alg := range []Alg{ES256, EdDSA} {
		k := testKeys()[alg]
		s, err := NewSigner(k.public.KID(), alg, "at+jwt", k.key)
		if err != nil {
			t.Fatal(err)
		}
		for range 300 { // enough for ECDSA values with leading zero bytes
			token, err := s.Sign([]byte(testPayload))
			if err != nil {
				t.Fatal(err)
			}
			m, err := k.read(token)
			if err != nil || string(m.Payload) != testPayload {
				t.Fatalf("%s: %v %s", alg, err, m.Payload)
			}
		}
		if _, err := s.Sign(nil); err == nil {
			t.Error("an empty payload was signed")
		}
		longest := MaxToken
		for ; ; longest-- {
			if token, err := s.Sign([]byte(strings.Repeat("x", longest))); err == nil {
				if _, err := k.read(token); err != nil {
					t.Fatalf("the longest token is not read: %v", err)
				}
				if len(token) < MaxToken-2 {
					t.Fatalf("the longest token is only %d bytes", len(token))
				}
				break
			}
		}
	}
	for _, alg := range []Alg{RS256, PS256, "HS256", "none", ""} {
		if _, err := NewSigner("k", alg, "at+jwt", testKeys()[RS256].key); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", alg, err)
		}
	}
	var nilKey *ecdsa.PrivateKey
	for _, key := range []crypto.Signer{nil, nilKey, ed25519.PrivateKey{}, testKeys()[EdDSA].key} {
		if _, err := NewSigner("k", ES256, "at+jwt", key); !errors.Is(err, ErrKey) {
			t.Errorf("%T: %v", key, err)
		}
	}
	if _, err := NewSigner("k", ES256, "", testKeys()[ES256].key); err == nil {
		t.Error("an empty typ was taken")
	}
}
