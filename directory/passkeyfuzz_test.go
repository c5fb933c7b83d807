package directory

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/passkeytest"
)

var fuzzParty = RelyingParty{ID: "app.example", Name: "app.example", Origins: []string{"https://app.example"}}

// member reads one of the byte strings of an answer.
func member(t testing.TB, answer []byte, name string) []byte {
	t.Helper()
	var a struct{ Response map[string]any }
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(a.Response[name].(string))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// fuzzMade is a user with a passkey, and an answer of each kind to one challenge.
func fuzzMade(t testing.TB) (u User, challenge string, created, got []byte) {
	t.Helper()
	challenge = strings.Repeat("c", 42) + "A"
	c := Ceremony{Challenge: challenge, UserID: "0123456789abcdefghijklmn"}
	options, err := fuzzParty.creation(&c, "ann@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	key := passkeytest.New("https://app.example")
	if created, err = key.Create(options, nil); err != nil {
		t.Fatal(err)
	}
	a, err := parseAttestation(created)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.verify(&fuzzParty, challenge)
	if err != nil {
		t.Fatal(err)
	}
	if options, err = fuzzParty.request(&c, nil); err != nil {
		t.Fatal(err)
	}
	if got, err = key.Get(options, nil); err != nil {
		t.Fatal(err)
	}
	return User{ID: c.UserID, Passkeys: []Passkey{p}}, challenge, created, got
}

// Whatever a client sends is refused with an error of its field, unless it is
// what the authenticator signed.
func FuzzPasskeyAssertion(f *testing.F) {
	u, challenge, _, got := fuzzMade(f)
	client, data, signature := member(f, got, "clientDataJSON"), member(f, got, "authenticatorData"), member(f, got, "signature")
	f.Add(client, data, signature)
	f.Add([]byte(`{}`), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, c, d, s []byte) {
		text, err := json.Marshal(map[string]any{
			"id": u.Passkeys[0].ID, "rawId": u.Passkeys[0].ID, "type": "public-key",
			"response": map[string]string{
				"clientDataJSON": base64.RawURLEncoding.EncodeToString(c), "authenticatorData": base64.RawURLEncoding.EncodeToString(d),
				"signature": base64.RawURLEncoding.EncodeToString(s), "userHandle": base64.RawURLEncoding.EncodeToString([]byte(u.ID)),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseAssertion(text)
		var wrong *counterfoil.FieldError
		if err != nil {
			if !errors.As(err, &wrong) || wrong.Field != "credential" {
				t.Fatalf("error %v names no field", err)
			}
			return
		}
		err = a.verify(&fuzzParty, challenge, &u, &u.Passkeys[0])
		if err == nil && (!bytes.Equal(c, client) || !bytes.Equal(d, data)) {
			t.Fatalf("took %q with %x", c, d)
		}
		if err != nil && !errors.Is(err, ErrPasskeyRefused) {
			t.Fatalf("error %v is no refusal", err)
		}
	})
}

func FuzzPasskeyAttestation(f *testing.F) {
	_, challenge, created, _ := fuzzMade(f)
	f.Add(member(f, created, "clientDataJSON"), member(f, created, "attestationObject"))
	f.Fuzz(func(t *testing.T, c, object []byte) {
		// The id is in the object: what is reported is taken from there.
		id := ""
		if len(object) >= 109 {
			id = base64.RawURLEncoding.EncodeToString(object[len(object)-109 : len(object)-77])
		}
		text, err := json.Marshal(map[string]any{
			"id": id, "rawId": id, "type": "public-key",
			"response": map[string]string{
				"clientDataJSON": base64.RawURLEncoding.EncodeToString(c), "attestationObject": base64.RawURLEncoding.EncodeToString(object),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseAttestation(text)
		if err != nil {
			return
		}
		p, err := a.verify(&fuzzParty, challenge)
		if err != nil {
			return
		}
		if len(p.PublicKey) == 0 || len(p.PublicKey) > maxPublicKey || p.BackedUp && !p.BackupEligible || weakKey(p.PublicKey) != "" {
			t.Fatalf("took %+v", p)
		}
	})
}

func FuzzPasskeyAnswerText(f *testing.F) {
	_, _, created, got := fuzzMade(f)
	f.Add(created)
	f.Add(got)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, err := range []error{second(parseAssertion(text)), second(parseAttestation(text))} {
			var wrong *counterfoil.FieldError
			if err != nil && (!errors.As(err, &wrong) || wrong.Field != "credential") {
				t.Fatalf("error %v names no field", err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// What is read as client data is what any reader of JSON sees.
func FuzzClientData(f *testing.F) {
	f.Add([]byte(`{"type":"webauthn.get","challenge":"x","origin":"https://app.example","crossOrigin":false,"topOrigin":"y"}`))
	f.Add([]byte(`{"Type":"webauthn.get","type":"webauthn.create"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := readClientData(text)
		if err != nil {
			return
		}
		var folding struct {
			Type, Challenge, Origin, TopOrigin string
			CrossOrigin                        bool
		}
		if err := json.Unmarshal(text, &folding); err != nil {
			t.Fatalf("took what encoding/json refuses: %v", err)
		}
		if c.kind != folding.Type || c.challenge != folding.Challenge || c.origin != folding.Origin ||
			c.topOrigin != folding.TopOrigin || c.crossOrigin != folding.CrossOrigin {
			t.Fatalf("read %+v, another reader %+v", c, folding)
		}
	})
}
