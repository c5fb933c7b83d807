package oracle

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/jws"
)

// known are texts that were signed on purpose, each with its issuer's twin.
type known map[string]bool

func (k known) add(t testing.TB, i issuer, token string) string {
	t.Helper()
	k[token] = true
	if i.alg == jws.ES256 {
		k[twin(t, token)] = true
	}
	return token
}

// differ checks what holds of every text: our readers take only what was signed
// on purpose, in its one spelling (or as its ECDSA twin); and of what they take,
// no two readers disagree on the meaning, and at least one general library takes
// it too. It tells how many of ours took it.
func differ(ours []subject, i issuer, text string, signed known) (taken int, err error) {
	for _, s := range ours {
		payload, claims, err := s.read(i, text)
		if err != nil {
			continue
		}
		taken++
		if !signed[text] {
			return taken, fmt.Errorf("%s takes another spelling, or a forgery: %q", s.name, text)
		}
		var refusals []error
		for _, o := range s.oracles {
			otherPayload, otherClaims, err := o.read(i, text)
			switch {
			case err != nil:
				refusals = append(refusals, fmt.Errorf("%s: %w", o.name, err))
			case payload != nil && otherPayload != nil && !bytes.Equal(payload, otherPayload):
				return taken, fmt.Errorf("%s reads %q, %s reads %q: %q", s.name, payload, o.name, otherPayload, text)
			case claims != nil && otherClaims != nil && !reflect.DeepEqual(claims, otherClaims):
				return taken, fmt.Errorf("%s reads %v, %s reads %v: %q", s.name, claims, o.name, otherClaims, text)
			}
		}
		if len(refusals) == len(s.oracles) {
			return taken, fmt.Errorf("only %s takes it: %q: %w", s.name, text, errors.Join(refusals...))
		}
	}
	return taken, nil
}

// mustAgree is differ with our readers for a test.
func mustAgree(t testing.TB, i issuer, text string, signed known) (taken int) {
	t.Helper()
	taken, err := differ(subjects, i, text, signed)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// tokens are the good ones and their nasty relatives.
func tokens(t testing.TB) (good []string, signed known) {
	signed = known{}
	for _, i := range issuers() {
		good = append(good, signed.add(t, i, i.sign([]byte(i.header()), []byte(claims))))
		good = append(good, signed.add(t, i, i.sign([]byte(i.header()), []byte(`{"a":1}`)))) // another length modulo 3
	}
	return good, signed
}

func seed(t testing.TB) *rand.Rand {
	n := uint64(1)
	if text := os.Getenv("COUNTERFOIL_TEST_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("COUNTERFOIL_TEST_SEED: %v", err)
		}
	}
	t.Logf("COUNTERFOIL_TEST_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// The good tokens and their twins are taken by everybody, so that the tests
// below do not pass by refusing everything.
func TestGoodTokens(t *testing.T) {
	good, signed := tokens(t)
	taken := 0
	for text := range signed {
		for _, i := range issuers() {
			taken += mustAgree(t, i, text, signed)
		}
	}
	if again, _ := tokens(t); !slices.Equal(again, good) {
		t.Error("signing is not deterministic, so fuzzing would find false forgeries")
	}
	// Half of them have the claims that verify wants.
	if want := 2*10 + 5; len(signed) != 10 || taken != want {
		t.Fatalf("%d texts taken %d times, want 10 and %d", len(signed), taken, want)
	}
}

// Hand-made headers and payloads, signed with the right key: for each we know
// what a strict reader does.
func TestNasties(t *testing.T) {
	for _, i := range issuers() {
		for _, n := range nasties {
			signed := known{}
			header := strings.NewReplacer("ALG", string(i.alg), "KID", i.kid()).Replace(n.header)
			text := signed.add(t, i, i.sign([]byte(header), []byte(n.payload)))
			if taken := mustAgree(t, i, text, signed); taken != n.taken {
				t.Errorf("%s %s: taken by %d of our readers, want %d", i.alg, n.name, taken, n.taken)
			}
		}
		for _, text := range respellings(i.sign([]byte(i.header()), []byte(claims))) {
			if taken := mustAgree(t, i, text, known{}); taken != 0 {
				t.Errorf("%s: another spelling is taken: %q", i.alg, text)
			}
		}
	}
}

// The same checks find the known gaps of general libraries when these stand in
// for our readers: so they would find such gaps in ours.
func TestChecksHaveTeeth(t *testing.T) {
	for _, o := range slices.Concat(oracles, claimOracles) {
		found := 0
		for _, i := range issuers() {
			token := i.sign([]byte(i.header()), []byte(claims))
			for _, text := range respellings(token) {
				if _, err := differ([]subject{{o, oracles}}, i, text, known{token: true}); err != nil {
					found++
				}
			}
		}
		t.Logf("%s: %d other spellings taken", o.name, found)
		if found == 0 {
			t.Errorf("%s: no other spelling found", o.name)
		}
	}
}

// Many small edits of texts: nothing but the good ones is taken.
func TestMutatedTexts(t *testing.T) {
	const rounds = 60_000
	r := seed(t)
	good, signed := tokens(t)
	alive := 0
	for range rounds {
		text := mutateText(r, good)
		for _, i := range issuers() {
			alive += mustAgree(t, i, text, signed)
		}
	}
	t.Logf("%d texts, %d times a good one came out", rounds, alive)
}

// Small edits of headers and payloads that are then signed: here the signature
// holds, and only strictness is left to disagree on.
func TestMutatedAndSigned(t *testing.T) {
	const rounds = 6_000
	r := seed(t)
	taken := 0
	for round := range rounds {
		i := issuers()[round%2] // RSA signing is too slow for many
		if round%50 == 0 {
			i = issuers()[2+round/50%2]
		}
		header, payload := []byte(i.header()), []byte(claims)
		if r.IntN(2) == 0 {
			header = mutateJSON(r, header)
		}
		if r.IntN(2) == 0 {
			payload = mutateJSON(r, payload)
		}
		signed := known{}
		text := signed.add(t, i, i.sign(header, payload))
		taken += mustAgree(t, i, text, signed)
		for range 3 {
			mustAgree(t, i, mutateText(r, []string{text}), signed)
		}
	}
	t.Logf("%d tokens, taken %d times", rounds, taken)
	if taken < rounds/4 {
		t.Errorf("only %d of %d were taken: too few to compare", taken, rounds)
	}
}

func FuzzText(f *testing.F) {
	good, signed := tokens(f)
	for text := range signed {
		f.Add(text)
	}
	for _, text := range good {
		for _, other := range respellings(text) {
			f.Add(other)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, i := range issuers() {
			mustAgree(t, i, text, signed)
		}
	})
}

func FuzzSigned(f *testing.F) {
	i := issuers()[0]
	f.Add([]byte(i.header()), []byte(claims))
	for _, n := range nasties {
		f.Add([]byte(strings.NewReplacer("ALG", string(i.alg), "KID", i.kid()).Replace(n.header)), []byte(n.payload))
	}
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		signed := known{}
		text := signed.add(t, i, i.sign(header, payload))
		mustAgree(t, i, text, signed)
		for _, other := range respellings(text) {
			mustAgree(t, i, other, signed)
		}
	})
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// mutateText edits one of the texts, or makes one of parts of two.
func mutateText(r *rand.Rand, texts []string) string {
	pick := func() string { return texts[r.IntN(len(texts))] }
	text := []byte(pick())
	for range 1 + r.IntN(2) {
		if len(text) == 0 {
			break
		}
		at := r.IntN(len(text))
		if r.IntN(3) == 0 { // the ends of parts are where spellings differ
			dots := []int{bytes.IndexByte(text, '.'), bytes.LastIndexByte(text, '.'), len(text)}
			at = max(0, dots[r.IntN(3)]-1-r.IntN(2))
		}
		switch r.IntN(9) {
		case 0:
			text[at] = alphabet[r.IntN(len(alphabet))]
		case 1:
			text[at] ^= 1 << r.IntN(8)
		case 2:
			text = slices.Delete(text, at, at+1)
		case 3:
			odd := []string{"=", "==", "\n", "\r", "\r\n", " ", "\t", "\x00", ".", "..", "+", "/", "%3D", "A", "AA", "AAAA", "\u00a0", "\u200b", "\uFEFF"}
			text = slices.Insert(text, at+r.IntN(2), []byte(odd[r.IntN(len(odd))])...)
		case 4: // a part, or its start or end, of another
			other := strings.Split(pick(), ".")
			parts := strings.Split(string(text), ".")
			n := r.IntN(min(len(parts), len(other)))
			parts[n] = other[n]
			text = []byte(strings.Join(parts, "."))
		case 5: // an edit below base64
			parts := strings.Split(string(text), ".")
			n := r.IntN(len(parts))
			if raw, err := base64url.DecodeString(parts[n]); err == nil && len(raw) > 0 {
				raw[r.IntN(len(raw))] ^= 1 << r.IntN(8)
				parts[n] = base64url.EncodeToString(raw)
			}
			text = []byte(strings.Join(parts, "."))
		case 6: // more or less of it
			text = append(text, text[r.IntN(len(text)):]...)
		case 7:
			text = text[:at]
		case 8: // the header or the payload written anew
			parts := strings.Split(string(text), ".")
			n := r.IntN(min(2, len(parts)))
			if raw, err := base64url.DecodeString(parts[n]); err == nil {
				parts[n] = base64url.EncodeToString(mutateJSON(r, raw))
			}
			text = []byte(strings.Join(parts, "."))
		}
	}
	return string(text)
}

// mutateJSON edits a JSON text so that it stays near to JSON.
func mutateJSON(r *rand.Rand, data []byte) []byte {
	pieces := []string{
		" ", "\n", "\t", `"`, `\`, `\u0061`, `\u0000`, `\ud800`, `\ud83d\ude00`, `,`, `:`, `{`, `}`, `[`, `]`, `{}`, `[]`, `null`, `true`, `0`, `-`, `1e1`, `.0`,
		`"a":1,`, `"A":1,`, `"alg":"none",`, `"ALG":"none",`, `"crit":["exp"],`, `"sub":"evil",`, `"SUB":"evil",`, `"typ":"JWT",`, `"k\u0069d":"x",`, "\u017F", "\u212A", "\xff", "\uFEFF", "é",
	}
	data = slices.Clone(data)
	for range 1 + r.IntN(2) {
		at := r.IntN(len(data) + 1)
		switch r.IntN(5) {
		case 0:
			data = slices.Insert(data, at, []byte(pieces[r.IntN(len(pieces))])...)
		case 1: // between members, where it has the best chance to stay JSON
			if commas := indexes(data, ','); len(commas) > 0 {
				data = slices.Insert(data, commas[r.IntN(len(commas))]+1, []byte(pieces[r.IntN(len(pieces))])...)
			}
		case 2:
			if at < len(data) {
				data = slices.Delete(data, at, at+1)
			}
		case 3:
			if at < len(data) {
				data[at] ^= 1 << r.IntN(8)
			}
		case 4: // a letter written as an escape
			if at < len(data) && 'a' <= data[at] && data[at] <= 'z' {
				data = slices.Replace(data, at, at+1, []byte(`\u00`+strconv.FormatInt(int64(data[at]), 16))...)
			}
		}
	}
	return data
}

func indexes(data []byte, c byte) (at []int) {
	for i := range data {
		if data[i] == c {
			at = append(at, i)
		}
	}
	return at
}
