package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"strings"
)

// setCase is a key set and what is taken from it.
type setCase struct {
	Name     string   `json:"name"`
	Document string   `json:"document"`
	Refused  bool     `json:"refused,omitempty"`
	Version  int64    `json:"version,omitempty"`
	Keys     []string `json:"keys,omitempty"` // "kid alg", in the order of the document
}

func keySets() object {
	var cases []setCase
	add := func(name, document string, keys ...string) {
		cases = append(cases, setCase{Name: name, Document: document, Keys: keys})
	}
	refuse := func(name, document string) {
		cases = append(cases, setCase{Name: name, Document: document, Refused: true})
	}
	set := func(keys ...object) string { return compact(object{"keys": keys}) }
	ec, ed, rs := ecJWK("es1", es1), edJWK("ed1", ed1), rsaJWK("rs1", "RS256", rs1)
	change := func(key object, name string, value any) object {
		key = maps.Clone(key)
		key[name] = value
		return key
	}
	drop := func(key object, names ...string) object {
		key = maps.Clone(key)
		for _, name := range names {
			delete(key, name)
		}
		return key
	}

	add("one of each", compact(jwks()), "es1 ES256", "es2 ES256", "ed1 EdDSA", "rs1 RS256", "ps1 PS256")
	cases[0].Version = 7
	add("none", `{"keys":[]}`)
	add("members of a later version", `{"keys":[],"cf_version":0,"cf_more":{"a":1}}`)
	add("no use", set(drop(ec, "use")), "es1 ES256")
	add("key_ops verify", set(change(drop(ec, "use"), "key_ops", list{"verify"})), "es1 ES256")
	add("members nobody looks at", set(change(ec, "x5c", list{"MIIB"})), "es1 ES256")
	for name, key := range map[string]object{
		"no alg": drop(ec, "alg"), "another alg": change(ec, "alg", "ES384"), "alg of a symmetric key": change(ec, "alg", "HS256"), "empty alg": change(ec, "alg", ""),
		"Ed448": change(change(ed, "crv", "Ed448"), "kid", "ed2"), "for encryption": change(ec, "use", "enc"), "use in another case": change(ec, "use", "SIG"),
		"for signing": change(drop(ec, "use"), "key_ops", list{"sign"}), "for signing and verifying": change(drop(ec, "use"), "key_ops", list{"sign", "verify"}),
		"of another kty": {"kty": "AKP", "alg": "ML-DSA-44", "kid": "q1", "pub": "AA"},
	} {
		add("skipped: "+name, set(key, ed), "ed1 EdDSA")
	}

	refuse("no object", `[]`)
	refuse("no keys", `{}`)
	refuse("keys is no array", `{"keys":{}}`)
	refuse("keys twice", `{"keys":[],"keys":[]}`)
	refuse("Keys beside keys", `{"keys":[],"Keys":[]}`)
	refuse("a key that is no object", `{"keys":["es1"]}`)
	refuse("a version below 0", `{"keys":[],"cf_version":-1}`)
	refuse("a version that is text", `{"keys":[],"cf_version":"7"}`)
	refuse("CF_version", `{"keys":[],"CF_version":7}`)
	refuse("a kid twice", set(ec, change(ed, "kid", "es1")))
	refuse("a kid twice, once of a key to skip", set(ec, change(ed, "kid", "es1"), change(ed, "alg", "x")))
	refuse("101 keys", `{"keys":[`+strings.TrimSuffix(strings.Repeat(`{"kty":"x"},`, 101), ",")+`]}`)
	for name, key := range map[string]object{
		"no kty": drop(ec, "kty"), "empty kty": change(ec, "kty", ""), "symmetric": {"kty": "oct", "kid": "h", "alg": "HS256"}, "kty of another alg": change(ec, "kty", "RSA"),
		"kty in another case": change(ec, "kty", "ec"), "crv of another alg": change(ec, "crv", "P-384"), "no crv": drop(ec, "crv"), "no crv, EdDSA": drop(ed, "crv"), "RSA with crv": change(rs, "crv", "P-256"),
		"no kid": drop(ec, "kid"), "kid that is a path": change(ec, "kid", "../es1"), "kid that is a number": change(ec, "kid", 1), "kid of 65 characters": change(ec, "kid", strings.Repeat("k", 65)),
		"private": change(ec, "d", "AA"), "private, of a key to skip": {"kty": "AKP", "priv": "AA"}, "k": change(ec, "k", "AA"), "p": change(rs, "p", "AA"),
		"Kid beside kid": change(ec, "Kid", "es1"), "ALG": change(ec, "ALG", "none"), "use and key_ops contradict": change(ec, "key_ops", list{"sign"}), "key_ops is text": change(ec, "key_ops", "verify"),
		"no x": drop(ec, "x"), "no y": drop(ec, "y"), "padding": change(ec, "x", ec["x"].(string)+"="), "x of 31 bytes": change(ec, "x", b64(make([]byte, 31))),
		"respelled x": change(ec, "x", respelled(ec["x"].(string))), "off the curve": change(ec, "y", b64(seed("off the curve"))), "x twice as long": change(ed, "x", b64(make([]byte, 64))),
		"Ed25519 of order 1": change(ed, "x", point("01")), "Ed25519 of order 2": change(ed, "x", point("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")),
		"Ed25519 of order 4": change(ed, "x", point("00")), "Ed25519 of order 8, other sign": change(ed, "x", point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85")),
		"no n": drop(rs, "n"), "no e": drop(rs, "e"), "e is 3": change(rs, "e", "Aw"), "e with a zero before": change(rs, "e", "AAEAAQ"), "a zero byte before n": change(rs, "n", b64(append([]byte{0}, rs1.N.Bytes()...))),
		"RSA of 1024 bits": change(rs, "n", b64(rs1.Primes[0].Bytes())), "RSA of 2047 bits": change(rs, "n", b64(halved(rs1.N))), "RSA of 8200 bits": change(rs, "n", b64(append([]byte{0x80}, make([]byte, 1024)...))),
		"an even modulus": change(rs, "n", b64(new(big.Int).Sub(rs1.N, big.NewInt(1)).Bytes())), "the ROCA kind": change(rs, "n", b64(roca())),
	} {
		refuse(name, set(key, ed))
	}
	return object{"about": "Key sets, and the keys that are taken from them. See README.md.", "cases": sorted(cases, func(c setCase) string { return c.Name })}
}

func compact(v any) string { return string(must(json.Marshal(v))) }

// point pads 32 bytes with zeros behind.
func point(h string) string {
	return b64(append(must(hex.DecodeString(h)), make([]byte, 32-len(h)/2)...))
}

func halved(n *big.Int) []byte {
	h := new(big.Int).Rsh(n, 1)
	return h.SetBit(h, 0, 1).Bytes()
}

// roca is a power of 65537 modulo every small prime, as the moduli of that key
// generator are, and has 2048 bits. It is no product of two primes.
func roca() []byte {
	m := big.NewInt(2)
	for p := int64(3); p < 168; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			m.Mul(m, big.NewInt(p))
		}
	}
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	n.Sub(n, new(big.Int).Mod(n, m))
	n.Add(n, m)
	return n.Add(n, big.NewInt(1)).Bytes() // 1 is 65537 to the power of 0
}

// documents are texts that are one JSON document, and texts that are not.
func documents() object {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	wide := func(n int) string {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"m%d":%d`, i, i))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	return object{
		"about": "JSON, strictly. Every element is the text of a document. See README.md.",
		"good": list{
			`{}`, `[]`, ` { } `, "\t[\r\n] ", `{"a":{"a":{"a":1}}}`, nest(16), wide(64), `[0,-0,1.5,-1e5,1E+2,12345678901234567890]`, `["\"\\\/\b\f\n\r\t\u0041"]`,
			`["\ud83d\ude00"]`, `["` + "\u007f\u2028\U0001F600" + `"]`, `{"":1}`, `{"a":1,"A":2}`, `[true,false,null]`, `{"__proto__":1,"constructor":2}`, `[1e-400]`,
		},
		"bad": list{
			``, ` `, `{`, `[`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `[1`, `[1,`, `{"a":1}}`, `{} {}`, `[]x`, `{,}`, `{"a":1,}`, `[1,]`, `[,1]`, `[1 2]`, `{"a" 1}`, `{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `{1:1}`,
			nest(17), wide(65), `{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `[{"a":1,"a":1}]`, `[01]`, `[-]`, `[+1]`, `[.5]`, `[1.]`, `[1e]`, `[0x10]`, `[NaN]`, `[Infinity]`, `[1_0]`, `[--1]`,
			`[123456789012345678901]`, `[1e999]`, `["\x41"]`, `["\u12G4"]`, `["\u12"]`, `["\U0041"]`, `["\'"]`, "[\"\n\"]", "[\"\x00\"]", `["`, `["\`, `["\ud800"]`, `["\ud800x"]`, `["\udc00"]`, `["\udc00\ud800"]`, `["\ud83d\u0041"]`,
			`[True]`, `[nul]`, `[truex]`, `[undefined]`, `[/**/]`, `[]//`, "[\u00a0]", "[\v]", "\ufeff[]", `[}`, `{]`,
		},
		"integers": object{
			"good": object{"0": "0", "7": "7", "-7": "-7", "1763770000": "1763770000", "9007199254740991": "9007199254740991", "-9007199254740991": "-9007199254740991"},
			"bad":  list{`"7"`, "-0", "1.0", "1e3", "9223372036854775808", "-9223372036854775809", "null", "true", "[]", "{}"},
		},
	}
}
