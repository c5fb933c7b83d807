package oracle

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/jws"
)

// SEC-56: Wycheproof's vectors for every algorithm that a verifier may know.

// file is the common form of the vector files used here.
type file struct {
	NumberOfTests int
	TestGroups    []group
}

type group struct {
	Comment         string
	Public, Private json.RawMessage // a JWK, or a JWKS
	PublicKeyDer    string
	Tests           []vector
}

type vector struct {
	TCID     int `json:"tcId"`
	Comment  string
	Result   string // valid, invalid, acceptable
	JWS      any
	Msg, Sig string
}

func load(t *testing.T, name string) file {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range f.TestGroups {
		count += len(g.Tests)
	}
	if count != f.NumberOfTests || count == 0 {
		t.Fatalf("%s: %d vectors, want %d", name, count, f.NumberOfTests)
	}
	return f
}

// tally counts what became of the vectors of one file.
type tally map[string]int

func (c tally) check(t *testing.T, want tally) {
	t.Helper()
	t.Log(c)
	if fmt.Sprint(c) != fmt.Sprint(want) {
		t.Errorf("counts changed: got %v, want %v", c, want)
	}
}

// accepts does what a verifier does, but for typ: no vector has one. The keys
// go through the strict key set reader.
func accepts(text string, set []byte) (bool, error) {
	keys, err := jwk.ParseSet(set)
	if err != nil {
		return false, err
	}
	m, err := jws.ParseUntyped(text)
	if err != nil {
		return false, err
	}
	for _, k := range keys.Keys {
		if k.KID() == m.Header.Kid {
			err := m.Verify(k)
			return err == nil, err
		}
	}
	return false, fmt.Errorf("unknown kid, skipped %v", keys.Skipped)
}

// Valid vectors that we refuse by our own rules, with an enabled algorithm.
var deliberate = map[int]string{
	259: "empty payload", 272: "empty payload",
	345: "kid with characters beyond A-Z a-z 0-9 _ -", 349: "kid with characters beyond A-Z a-z 0-9 _ -",
	346: "signed with PS384, the key says PS256", 350: "signed with PS384, the key says PS256",
}

func TestWycheproofJSONWebSignature(t *testing.T) {
	count := tally{}
	for _, g := range load(t, "json_web_signature_test.json").TestGroups {
		// A symmetric key comes as private alone; it is given to the reader too.
		key := g.Public
		if key == nil {
			key = g.Private
		}
		var k struct{ Alg jws.Alg }
		if err := json.Unmarshal(key, &k); err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Tests {
			text, ok := v.JWS.(string)
			if !ok {
				t.Fatalf("%d: not a text", v.TCID)
			}
			got, err := accepts(text, []byte(`{"keys":[`+string(key)+`]}`))
			want := v.Result == "valid"
			switch reason := deliberate[v.TCID]; {
			case want && !k.Alg.Known():
				want = false
				count["refused: valid, but of an algorithm that is not enabled"]++
			case want && reason != "":
				want = false
				count["refused: "+reason]++
			case want:
				count["accepted: valid"]++
			default:
				count["refused: invalid"]++
			}
			if got != want {
				t.Errorf("%d %s (%s): accepted %v, want %v: %v", v.TCID, v.Comment, v.Result, got, want, err)
			}
			// No vector has a typ, so none is an access token.
			if m, err := jws.Parse(text); err == nil {
				t.Errorf("%d: taken without a typ: %+v", v.TCID, m.Header)
			}
		}
	}
	// All 401 are run, those for algorithms that are not enabled too.
	count.check(t, tally{
		"accepted: valid": 12, "refused: invalid": 355, "refused: valid, but of an algorithm that is not enabled": 28,
		"refused: empty payload": 2, "refused: kid with characters beyond A-Z a-z 0-9 _ -": 2, "refused: signed with PS384, the key says PS256": 2,
	})
}

func TestWycheproofJSONWebKey(t *testing.T) {
	count := tally{}
	for _, g := range load(t, "json_web_key_test.json").TestGroups {
		for _, v := range g.Tests {
			text, ok := v.JWS.(string)
			if !ok {
				t.Fatalf("%d: not a text", v.TCID)
			}
			set, kind := g.Public, "public"
			if set == nil {
				set, kind = g.Private, "symmetric"
			}
			got, err := accepts(text, set)
			// Symmetric keys are never taken, good ones neither.
			if want := v.Result == "valid" && kind == "public"; got != want {
				t.Errorf("%d %s (%s): accepted %v, want %v: %v", v.TCID, g.Comment, v.Result, got, want, err)
			}
			count[fmt.Sprintf("%s, %s: accepted %v", kind, v.Result, got)]++
			if g.Public != nil {
				if _, err := jwk.ParseSet(g.Private); err == nil {
					t.Errorf("%d: a private key was taken", v.TCID)
				}
			}
		}
	}
	count.check(t, tally{
		"public, invalid: accepted false": 10, "public, valid: accepted true": 1,
		"symmetric, invalid: accepted false": 11, "symmetric, valid: accepted false": 4,
	})
}

// The bare signature vectors below the JOSE layer.
func TestWycheproofSignatures(t *testing.T) {
	const (
		good   = "valid: accepted true"
		bad    = "invalid: accepted false"
		loose  = "acceptable: accepted false" // a digest info without NULL
		weak   = "valid: key refused"         // an exponent other than 65537
		noSalt = "rsa_pss_2048_sha256_mgf1_0_test.json"
	)
	for _, c := range []struct {
		name string
		alg  jws.Alg
		want tally
	}{
		{"ecdsa_secp256r1_sha256_p1363_test.json", jws.ES256, tally{good: 173, bad: 89}},
		{"ed25519_test.json", jws.EdDSA, tally{good: 88, bad: 63}},
		{"rsa_signature_2048_sha256_test.json", jws.RS256, tally{good: 7, bad: 249, loose: 1, weak: 2}},
		{"rsa_signature_3072_sha256_test.json", jws.RS256, tally{good: 7, bad: 250, loose: 1, weak: 1}},
		{"rsa_signature_4096_sha256_test.json", jws.RS256, tally{good: 7, bad: 250, loose: 1}},
		{"rsa_pss_2048_sha256_mgf1_32_test.json", jws.PS256, tally{good: 63, bad: 45}},
		{"rsa_pss_3072_sha256_mgf1_32_test.json", jws.PS256, tally{good: 63, bad: 45}},
		{"rsa_pss_4096_sha256_mgf1_32_test.json", jws.PS256, tally{good: 63, bad: 45}},
		// Valid for a salt of no length, so refused here; but its 69 has our salt length, which is invalid there.
		{noSalt, jws.PS256, tally{"valid: accepted false": 61, bad: 41, "invalid: accepted true": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			count := tally{}
			for _, g := range load(t, c.name).TestGroups {
				der, err := hex.DecodeString(g.PublicKeyDer)
				if err != nil {
					t.Fatal(err)
				}
				var key *jws.PublicKey // nil when it is refused
				if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
					key, _ = jws.NewPublicKey("k", c.alg, pub)
				}
				for _, v := range g.Tests {
					if key == nil {
						count[v.Result+": key refused"]++
						continue
					}
					msg, err := hex.DecodeString(v.Msg)
					if err != nil {
						t.Fatal(err)
					}
					sig, err := hex.DecodeString(v.Sig)
					if err != nil {
						t.Fatal(err)
					}
					got := key.Signed(string(msg), sig)
					want := v.Result == "valid"
					if c.name == noSalt {
						want = v.TCID == 69
					}
					if got != want {
						t.Errorf("%d %s (%s): accepted %v", v.TCID, v.Comment, v.Result, got)
					}
					count[fmt.Sprintf("%s: accepted %v", v.Result, got)]++
				}
			}
			count.check(t, c.want)
		})
	}
}

// So that the exceptions above stay few and known.
func TestWycheproofExceptionsAreUsed(t *testing.T) {
	var ids []int
	for _, g := range load(t, "json_web_signature_test.json").TestGroups {
		for _, v := range g.Tests {
			if deliberate[v.TCID] != "" && v.Result == "valid" {
				ids = append(ids, v.TCID)
			}
		}
	}
	if slices.Sort(ids); len(ids) != len(deliberate) {
		t.Errorf("only %v of the exceptions are valid vectors", ids)
	}
}
