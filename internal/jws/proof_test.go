package jws

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

const proofHeader = `{"alg":"ES256","typ":"dbsc+jwt","jwk":{"kty":"EC"},"later":[1]}`

func TestParseProof(t *testing.T) {
	k := testKeys()[ES256]
	p, err := ParseProof(k.sign(t, proofHeader, `{"jti":"x"}`))
	if err != nil || p.Alg != ES256 || p.Typ != "dbsc+jwt" || string(p.JWK) != `{"kty":"EC"}` || string(p.Payload) != `{"jti":"x"}` {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := p.Verify(k.public); err != nil {
		t.Error(err)
	}
	for alg, other := range testKeys() {
		if alg != ES256 && !errors.Is(p.Verify(other.public), ErrSignature) {
			t.Errorf("SEC-42: verified by a key for %s", alg)
		}
	}
	if err := p.Verify(nil); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
	p.Payload[0] = '[' // what was signed is the text
	if err := p.Verify(k.public); err != nil {
		t.Error(err)
	}
}

func TestParseProofRefuses(t *testing.T) {
	k := testKeys()[ES256]
	for name, header := range map[string]string{
		"none":            `{"alg":"none","typ":"dbsc+jwt"}`,
		"HS256":           `{"alg":"HS256","typ":"dbsc+jwt"}`,
		"no alg":          `{"typ":"dbsc+jwt"}`,
		"alg twice":       `{"alg":"ES256","alg":"ES256"}`,
		"alg in capitals": `{"alg":"ES256","ALG":"none"}`,
		"jwk as text":     `{"alg":"ES256","jwk":"{}"}`,
		"jwk null":        `{"alg":"ES256","jwk":null}`,
		"crit":            `{"alg":"ES256","crit":["b64"]}`,
		"b64":             `{"alg":"ES256","b64":false}`,
		"jku":             `{"alg":"ES256","jku":"https://evil.example"}`,
		"x5c":             `{"alg":"ES256","x5c":[]}`,
		"enc":             `{"alg":"ES256","enc":"A128GCM"}`,
		"no object":       `["ES256"]`,
		"typ a number":    `{"alg":"ES256","typ":1}`,
	} {
		if _, err := ParseProof(k.sign(t, header, `{}`)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := k.sign(t, proofHeader, `{}`)
	for _, text := range []string{"", "..", good + ".", good + "=", " " + good, strings.Replace(good, ".", "\n.", 1), strings.Repeat("a", MaxToken+1)} {
		if _, err := ParseProof(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// FuzzParseProof: what is read has one spelling, and nobody forges it.
func FuzzParseProof(f *testing.F) {
	k := testKeys()[ES256]
	good := k.sign(f, proofHeader, `{"jti":"x"}`)
	f.Add(good)
	f.Add(good[1:])
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProof(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		end := "." + base64.RawURLEncoding.EncodeToString(p.Payload) + "." + base64.RawURLEncoding.EncodeToString(p.signature)
		if !strings.HasSuffix(text, end) || !p.Alg.Known() {
			t.Fatalf("another spelling was taken: %s", text)
		}
		if p.Verify(k.public) == nil && string(p.Payload) != `{"jti":"x"}` {
			t.Fatalf("forged: %s", text)
		}
	})
}
