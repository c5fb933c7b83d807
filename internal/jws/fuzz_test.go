package jws

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse: what is read has one spelling, and says what encoding/base64 says.
func FuzzParse(f *testing.F) {
	for _, k := range testKeys() {
		good := k.token(f)
		f.Add(good)
		f.Add(good + "=")
		f.Add(strings.Replace(good, ".", "\n.", 1))
		f.Add(k.sign(f, `{"alg":"none"}`, `{}`))
	}
	f.Add(strings.Repeat(".", 100))
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		parts := strings.Split(text, ".")
		if len(parts) != 3 || len(text) > MaxToken {
			t.Fatalf("%d parts, %d bytes", len(parts), len(text))
		}
		header, err := base64.RawURLEncoding.DecodeString(parts[0])
		if err != nil || len(header) > MaxHeader || !utf8.Valid(header) {
			t.Fatal("header", err)
		}
		again := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(m.Payload) + "." + base64.RawURLEncoding.EncodeToString(m.signature)
		if again != text {
			t.Fatalf("another spelling was taken:\n%s\n%s", text, again)
		}
		if !m.Header.Alg.Known() || !ValidKID(m.Header.Kid) || m.Header.Typ == "" || m.signed != parts[0]+"."+parts[1] {
			t.Fatalf("%+v", m.Header)
		}
		// Nobody signed it, unless it is one of the seeds.
		for _, k := range testKeys() {
			if m.Verify(k.public) == nil && string(m.Payload) != testPayload {
				t.Fatalf("forged: %s", text)
			}
		}
	})
}
