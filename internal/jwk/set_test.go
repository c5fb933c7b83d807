package jwk

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil/internal/jws"
)

var testSet = sync.OnceValue(func() Set {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	set := Set{Version: 42}
	for _, k := range []struct {
		alg jws.Alg
		key crypto.Signer
	}{{jws.ES256, ec}, {jws.EdDSA, ed}, {jws.RS256, rk}, {jws.PS256, rk}} {
		public, err := jws.NewPublicKey("k-"+string(k.alg), k.alg, k.key.Public())
		if err != nil {
			panic(err)
		}
		set.Keys = append(set.Keys, public)
	}
	return set
})

// one returns the JWK of the given algorithm from testSet, with members set to
// new raw values, or removed where the value is empty.
func one(t testing.TB, alg jws.Alg, change ...string) string {
	t.Helper()
	for _, k := range testSet().Keys {
		if k.Alg() != alg {
			continue
		}
		var doc struct{ Keys []map[string]json.RawMessage }
		if err := json.Unmarshal(MarshalSet(Set{Keys: []*jws.PublicKey{k}}), &doc); err != nil {
			t.Fatal(err)
		}
		m := doc.Keys[0]
		for i := 0; i < len(change); i += 2 {
			if m[change[i]] = json.RawMessage(change[i+1]); change[i+1] == "" {
				delete(m, change[i])
			}
		}
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	t.Fatal("no key for", alg)
	return ""
}

func TestRoundTrip(t *testing.T) {
	doc := MarshalSet(testSet())
	got, err := ParseSet(doc)
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != 42 || len(got.Keys) != 4 || len(got.Skipped) != 0 {
		t.Fatalf("got %+v", got)
	}
	for i, k := range got.Keys {
		want := testSet().Keys[i]
		equal := k.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(want.Public())
		if k.KID() != want.KID() || k.Alg() != want.Alg() || !equal {
			t.Errorf("key %d: got %s %s", i, k.KID(), k.Alg())
		}
	}
	if again := MarshalSet(got); !bytes.Equal(doc, again) {
		t.Fatalf("not deterministic:\n%s\n%s", doc, again)
	}
	if got := string(MarshalSet(Set{})); got != `{"keys":[]}` {
		t.Fatal(got)
	}
	if set, err := ParseSet([]byte(` { "x-vendor": {"a":[1]}, "keys" : [ ] } `)); err != nil || set.Version != 0 || len(set.Keys) != 0 {
		t.Fatal(set, err)
	}
}

func TestSEC75PublicMembersOnly(t *testing.T) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(MarshalSet(testSet()), &doc); err != nil {
		t.Fatal(err)
	}
	var keys []map[string]string
	if err := json.Unmarshal(doc["keys"], &keys); err != nil {
		t.Fatal(err)
	}
	for name := range doc {
		if name != "keys" && name != "cf_version" {
			t.Errorf("member %s", name)
		}
	}
	for _, k := range keys {
		for name := range k {
			if !regexp.MustCompile(`^(kty|use|alg|kid|crv|x|y|n|e)$`).MatchString(name) {
				t.Errorf("%s: member %s", k["kid"], name)
			}
		}
	}
}

func TestSkips(t *testing.T) {
	for _, c := range []struct{ name, key string }{
		{"SEC-42 no alg, RSA", one(t, jws.RS256, "alg", "")},
		{"SEC-42 no alg, EC", one(t, jws.ES256, "alg", "")},
		{"unknown alg", one(t, jws.ES256, "alg", `"ES384"`)},
		{"unknown alg", one(t, jws.RS256, "alg", `"RS1"`)},
		{"unknown alg, other case", one(t, jws.ES256, "alg", `"es256"`)},
		{"SEC-41 alg none", one(t, jws.ES256, "alg", `"none"`)},
		{"SEC-43 HMAC on a public key", one(t, jws.RS256, "alg", `"HS256"`)},
		{"SEC-42 use", one(t, jws.ES256, "use", `"enc"`)},
		{"SEC-42 use", one(t, jws.ES256, "use", `"SIG"`)},
		{"SEC-42 use", one(t, jws.ES256, "use", `""`)},
		{"SEC-42 key_ops", one(t, jws.ES256, "use", "", "key_ops", `["encrypt"]`)},
		{"SEC-42 key_ops", one(t, jws.ES256, "use", "", "key_ops", `["sign"]`)},
		{"SEC-42 key_ops", one(t, jws.ES256, "use", "", "key_ops", `["verify","encrypt"]`)},
		{"SEC-42 key_ops", one(t, jws.ES256, "use", "", "key_ops", `[]`)},
		{"unknown crv", one(t, jws.EdDSA, "crv", `"Ed448"`)},
		{"later kty", `{"kty":"AKP","alg":"ML-DSA-44","kid":"a","pub":"AAAA"}`},
		{"later kty, no kid", `{"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"}`},
	} {
		set, err := ParseSet([]byte(`{"keys":[` + one(t, jws.EdDSA, "kid", `"mine"`) + `,` + c.key + `]}`))
		if err != nil || len(set.Keys) != 1 || set.Keys[0].KID() != "mine" || len(set.Skipped) != 1 || set.Skipped[0].Reason == "" {
			t.Errorf("%s: %v %+v", c.name, err, set)
		}
	}
	// What is not skipped.
	for _, k := range []string{
		one(t, jws.ES256, "use", ""), one(t, jws.ES256, "use", "", "key_ops", `["verify"]`), one(t, jws.ES256, "key_ops", `["verify"]`),
		one(t, jws.RS256, "x5c", `["AAAA"]`, "x5t", `"AA"`, "x5u", `"http://169.254.169.254/"`), one(t, jws.ES256, "nbf", `1`),
	} {
		if set, err := ParseSet([]byte(`{"keys":[` + k + `]}`)); err != nil || len(set.Keys) != 1 {
			t.Errorf("%s: %v", k, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	str := func(n *big.Int) string { return `"` + base64url.EncodeToString(n.Bytes()) + `"` }
	modulus := testSet().Keys[2].Public().(*rsa.PublicKey).N
	small := new(big.Int).Rsh(modulus, 1024)
	small.SetBit(small, 0, 1)
	even := new(big.Int).Sub(modulus, big.NewInt(1))
	huge := new(big.Int).Lsh(modulus, 2048*4)
	huge.SetBit(huge, 0, 1)
	x := `"` + base64url.EncodeToString(bytes.Repeat([]byte{1}, 32)) + `"`
	zero := `"` + base64url.EncodeToString(make([]byte, 32)) + `"`
	key := one(t, jws.ES256)
	in := func(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }
	for _, c := range []struct{ name, doc string }{
		{"empty", ``}, {"not an object", `[]`}, {"keys missing", `{}`}, {"keys of another type", `{"keys":{}}`}, {"keys null", `{"keys":null}`},
		{"key of another type", in(`1`)}, {"key of another type", in(`null`)}, {"key of another type", in(`[]`)},
		{"keys twice", `{"keys":[],"keys":[]}`}, {"SEC-60 keys in other case", `{"keys":[],"Keys":[]}`}, {"SEC-60 keys in other case", `{"\u212Aeys":[],"keys":[]}`},
		{"trailing data", in() + "x"}, {"byte order mark", "\uFEFF" + in()},
		{"SEC-60 member in other case", in(one(t, jws.ES256, "ALG", `"HS256"`))}, {"SEC-60 member in other case", in(one(t, jws.ES256, "\u212Aid", `"a"`))},
		{"SEC-75 private member in other case", in(one(t, jws.ES256, "D", `"AA"`))},
		{"cf_version", `{"keys":[],"cf_version":-1}`}, {"cf_version", `{"keys":[],"cf_version":1.0}`}, {"cf_version", `{"keys":[],"cf_version":"1"}`},
		{"cf_version", `{"keys":[],"cf_version":9223372036854775808}`}, {"cf_version", `{"keys":[],"cf_version":null}`}, {"SEC-60 cf_version", `{"keys":[],"CF_version":1}`},
		{"SEC-79 size", in() + strings.Repeat(" ", MaxSet)},
		{"SEC-79 101 keys", in(strings.TrimSuffix(strings.Repeat(`{"kty":"AKP","alg":"X"},`, MaxKeys+1), ","))},
		{"SEC-47 duplicate kid", in(key, one(t, jws.EdDSA, "kid", `"k-ES256"`))}, {"SEC-47 duplicate kid of a skipped key", in(key, one(t, jws.EdDSA, "kid", `"k-ES256"`, "use", `"enc"`))},
		{"SEC-47 kid missing", in(one(t, jws.ES256, "kid", ""))}, {"SEC-47 kid empty", in(one(t, jws.ES256, "kid", `""`))},
		{"SEC-47 kid with a slash", in(one(t, jws.ES256, "kid", `"../k"`))}, {"SEC-47 kid too long", in(one(t, jws.ES256, "kid", `"`+strings.Repeat("k", 65)+`"`))},
		{"SEC-47 kid of another type", in(one(t, jws.ES256, "kid", `1`))},
		{"kty missing", in(one(t, jws.ES256, "kty", ""))}, {"kty of another type", in(one(t, jws.ES256, "kty", `["EC"]`))},
		{"SEC-42 kty against alg", in(one(t, jws.ES256, "kty", `"RSA"`))}, {"SEC-42 kty against alg", in(one(t, jws.EdDSA, "kty", `"EC"`))}, {"SEC-42 kty against alg", in(one(t, jws.RS256, "kty", `"oct"`))},
		{"SEC-42 kty against alg", in(one(t, jws.ES256, "kty", `"ec"`))},
		{"SEC-42 alg against kty", in(one(t, jws.RS256, "alg", `"ES256"`))}, {"SEC-42 alg against kty", in(one(t, jws.ES256, "alg", `"EdDSA"`))},
		{"SEC-42 crv against alg", in(one(t, jws.ES256, "crv", `"P-384"`))}, {"SEC-42 crv against alg", in(one(t, jws.ES256, "crv", `"secp256k1"`))}, {"SEC-42 crv missing", in(one(t, jws.ES256, "crv", ""))},
		{"SEC-42 crv missing", in(one(t, jws.EdDSA, "crv", ""))}, {"SEC-42 crv on RSA", in(one(t, jws.RS256, "crv", `"P-256"`))},
		{"SEC-42 use against key_ops", in(one(t, jws.ES256, "key_ops", `["encrypt"]`))}, {"SEC-42 use against key_ops", in(one(t, jws.ES256, "use", `"enc"`, "key_ops", `["verify"]`))},
		{"SEC-42 key_ops more than use", in(one(t, jws.ES256, "key_ops", `["verify","verify"]`))}, {"key_ops of another type", in(one(t, jws.ES256, "key_ops", `"verify"`))},
		{"SEC-42 oct key", in(key, `{"kty":"oct","alg":"HS256","kid":"h","k":"`+strings.Repeat("A", 43)+`"}`)},
		{"SEC-42 oct key without alg", in(`{"kty":"oct","kid":"h","k":""}`)},
		{"SEC-42 oct key without k", in(`{"kty":"oct","kid":"h"}`)},
		{"SEC-75 private EC key", in(one(t, jws.ES256, "d", x))}, {"SEC-75 private Ed25519 key", in(one(t, jws.EdDSA, "d", x))}, {"SEC-75 private RSA key", in(one(t, jws.RS256, "p", x))},
		{"SEC-75 private key of a skipped kind", in(`{"kty":"AKP","alg":"ML-DSA-44","priv":"AAAA"}`)},
		{"SEC-45 RSA 1024", in(one(t, jws.RS256, "n", str(small)))}, {"SEC-45 RSA 2047", in(one(t, jws.RS256, "n", str(new(big.Int).SetBit(new(big.Int).Rsh(modulus, 1), 0, 1))))},
		{"SEC-45 RSA huge", in(one(t, jws.RS256, "n", str(huge)))}, {"SEC-45 RSA even modulus", in(one(t, jws.PS256, "n", str(even)))},
		{"SEC-45 e = 1", in(one(t, jws.RS256, "e", `"AQ"`))}, {"SEC-45 e = 3", in(one(t, jws.RS256, "e", `"Aw"`))}, {"SEC-45 e even", in(one(t, jws.RS256, "e", `"AQAA"`))},
		{"e with a leading zero", in(one(t, jws.RS256, "e", `"AAEAAQ"`))}, {"e missing", in(one(t, jws.RS256, "e", ""))}, {"e a number", in(one(t, jws.RS256, "e", `65537`))},
		{"n missing", in(one(t, jws.RS256, "n", ""))}, {"n with a leading zero", in(one(t, jws.RS256, "n", `"`+base64url.EncodeToString(append([]byte{0}, modulus.Bytes()...))+`"`))},
		{"SEC-45 off curve", in(one(t, jws.ES256, "x", x))}, {"SEC-45 point at infinity", in(one(t, jws.ES256, "x", zero, "y", zero))},
		{"x missing", in(one(t, jws.ES256, "x", ""))}, {"y missing", in(one(t, jws.ES256, "y", ""))}, {"x short", in(one(t, jws.ES256, "x", `"AAAA"`))}, {"x long", in(one(t, jws.EdDSA, "x", x[:43]+`AA"`))},
		{"x padded", in(one(t, jws.EdDSA, "x", strings.TrimSuffix(x, `"`)+`="`))}, {"x with unused bits", in(one(t, jws.EdDSA, "x", x[:43]+`F"`))},
		{"x with a line end", in(one(t, jws.EdDSA, "x", strings.TrimSuffix(x, `"`)+`\n"`))}, {"x in the other alphabet", in(one(t, jws.EdDSA, "x", `"+/`+x[3:]))},
		{"SEC-45 Ed25519 of small order", in(one(t, jws.EdDSA, "x", zero))},
	} {
		set, err := ParseSet([]byte(c.doc))
		if !errors.Is(err, ErrSet) {
			t.Errorf("%s: got %v %+v\n%s", c.name, err, set, c.doc[:min(len(c.doc), 300)])
		}
		if set.Keys != nil || set.Version != 0 {
			t.Errorf("%s: a refused set has content", c.name)
		}
	}
}

// The examples of RFC 7638 section 3.1 and RFC 8037 appendix A.3.
func TestThumbprint(t *testing.T) {
	n, err := base64url.DecodeString("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
	if err != nil {
		t.Fatal(err)
	}
	ed, err := base64url.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pub  crypto.PublicKey
		want string
	}{
		{&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{ed25519.PublicKey(ed), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		got, err := Thumbprint(c.pub)
		if err != nil || got != c.want || !jws.ValidKID(got) {
			t.Errorf("%T: got %s, %v", c.pub, got, err)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []crypto.PublicKey{nil, []byte("key"), p384.Public(), ed25519.PublicKey{1}, (*ecdsa.PublicKey)(nil), &rsa.PublicKey{}} {
		if got, err := Thumbprint(pub); err == nil {
			t.Errorf("%T: got %s", pub, got)
		}
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add(MarshalSet(testSet()))
	for _, alg := range []jws.Alg{jws.ES256, jws.EdDSA, jws.RS256} {
		f.Add([]byte(`{"keys":[` + one(f, alg, "key_ops", `["verify"]`) + `,{"kty":"AKP","alg":"X"}],"cf_version":7}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseSet(data)
		if err != nil {
			if !errors.Is(err, ErrSet) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("took what is not JSON")
		}
		again, err := ParseSet(MarshalSet(set))
		if err != nil {
			t.Fatalf("our own document is refused: %v", err)
		}
		if fmt.Sprint(again.Version, len(again.Keys)) != fmt.Sprint(set.Version, len(set.Keys)) {
			t.Fatal("round trip lost something")
		}
		for i, k := range set.Keys {
			if k.KID() != again.Keys[i].KID() || k.Alg() != again.Keys[i].Alg() {
				t.Fatal("round trip changed a key")
			}
		}
	})
}
