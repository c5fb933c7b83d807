package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"
)

// A payload with the default claims of an access token.
const benchPayload = `{"iss":"https://app.example","sub":"01JD5M0T1ZQ7V7W9M8H3C5K2XA","aud":"orders","client_id":"default",` +
	`"sid":"3fZk81Yc0aHq72LmN4pRsT9v","iat":1763770000,"exp":1763770060,"jti":"01JD5M0T1ZQ7V7W9M8H3C5K2XB",` +
	`"auth_time":1763760000,"amr":["pwd"],"epoch":1763700000000001,"roles":["admin","editor"]}`

// The bare check of the standard library over the same bytes, and Parse with
// Verify. The goal is the ratio of the two in one run.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []Alg{ES256, EdDSA, RS256, PS256} {
		k := testKeys()[alg]
		token := k.sign(b, k.header(), benchPayload)
		m, err := Parse(token)
		if err != nil {
			b.Fatal(err)
		}
		signed := []byte(token[:strings.LastIndexByte(token, '.')])
		digest := sha256.Sum256(signed)
		signature := m.signature
		if alg == ES256 {
			if signature, err = k.key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
				b.Fatal(err)
			}
		}
		pair(b, string(alg), func() {
			var ok bool
			switch alg {
			case ES256:
				digest := sha256.Sum256(signed)
				ok = ecdsa.VerifyASN1(k.public.ec, digest[:], signature)
			case EdDSA:
				ok = ed25519.Verify(k.public.ed, signed, signature)
			case RS256:
				digest := sha256.Sum256(signed)
				ok = rsa.VerifyPKCS1v15(k.public.rsa, crypto.SHA256, digest[:], signature) == nil
			case PS256:
				digest := sha256.Sum256(signed)
				ok = rsa.VerifyPSS(k.public.rsa, crypto.SHA256, digest[:], signature, &pssOptions) == nil
			}
			if !ok {
				b.Fatal("not verified")
			}
		}, func() {
			m, err := Parse(token)
			if err != nil {
				b.Fatal(err)
			}
			if err := m.Verify(k.public); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	k := testKeys()[EdDSA]
	token := k.sign(b, k.header(), benchPayload)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(token); err != nil {
			b.Fatal(err)
		}
	}
}

// The same for signing: the bare signature over the bytes of the token, and Sign.
func BenchmarkSign(b *testing.B) {
	for _, alg := range []Alg{ES256, EdDSA} {
		k := testKeys()[alg]
		token := k.sign(b, k.header(), benchPayload)
		signed := []byte(token[:strings.LastIndexByte(token, '.')])
		s, err := NewSigner(k.public.KID(), alg, "at+jwt", k.key)
		if err != nil {
			b.Fatal(err)
		}
		payload := []byte(benchPayload)
		pair(b, string(alg), func() {
			var err error
			if alg == ES256 {
				digest := sha256.Sum256(signed)
				_, err = k.key.Sign(rand.Reader, digest[:], crypto.SHA256)
			} else {
				_, err = k.key.Sign(rand.Reader, signed, crypto.Hash(0))
			}
			if err != nil {
				b.Fatal(err)
			}
		}, func() {
			if _, err := s.Sign(payload); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// pair measures two functions by themselves, and then in turns: the ratio of
// their median times holds on a busy machine too.
func pair(b *testing.B, name string, bare, token func()) {
	for _, part := range []string{"bare", "token"} {
		f := map[string]func(){"bare": bare, "token": token}[part]
		b.Run(name+"/"+part, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	b.Run(name+"/ratio", func(b *testing.B) {
		var times [2][]time.Duration
		for b.Loop() {
			for i, f := range []func(){bare, token} {
				start := time.Now()
				f()
				times[i] = append(times[i], time.Since(start))
			}
		}
		for i := range times {
			slices.Sort(times[i])
		}
		median := func(t []time.Duration) float64 { return float64(t[len(t)/2]) }
		b.ReportMetric(median(times[1])/median(times[0]), "x-bare")
		b.ReportMetric(0, "ns/op") // of both together, which says nothing
	})
}
