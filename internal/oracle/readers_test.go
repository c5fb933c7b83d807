package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	jwxjws "github.com/lestrrat-go/jwx/v3/jws"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// reader verifies a token with the key of one issuer. What it returns is the
// payload as that reader understood it: raw bytes, or claims.
type reader struct {
	name string
	read func(i issuer, text string) (payload []byte, claims map[string]any, err error)
}

// subject is one of our readers. What it takes, one at least of its oracles
// takes too: those that are set up with the same rules.
type subject struct {
	reader
	oracles []reader
}

// subjects are our readers, from the bare signed message upwards. What is said
// of one in the differential tests holds of each.
var subjects = []subject{
	{reader{"jws", func(i issuer, text string) ([]byte, map[string]any, error) {
		m, err := jws.Parse(text)
		if err != nil {
			return nil, nil, err
		}
		return m.Payload, nil, m.Verify(i.public)
	}}, oracles},
	{reader{"jws and strictjson", func(i issuer, text string) ([]byte, map[string]any, error) {
		m, err := jws.Parse(text)
		if err != nil {
			return nil, nil, err
		}
		if err := m.Verify(i.public); err != nil {
			return nil, nil, err
		}
		claims := map[string]any{}
		err = strictjson.Object(m.Payload, func(name string, value []byte) error {
			v, err := decode(value)
			claims[name] = v
			return err
		})
		return m.Payload, claims, err
	}}, oracles},
	{reader{"verify", verified}, claimOracles},
}

// oracles are the general libraries, each set up as its users are told to: one
// algorithm, one key. They look at no claim.
var oracles = []reader{
	{"go-jose", func(i issuer, text string) ([]byte, map[string]any, error) {
		m, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(i.alg)})
		if err != nil {
			return nil, nil, err
		}
		if kid := m.Signatures[0].Header.KeyID; kid != i.kid() {
			return nil, nil, errors.New("another kid")
		}
		payload, err := m.Verify(i.key.Public())
		return payload, nil, err
	}},
	{"golang-jwt", func(i issuer, text string) ([]byte, map[string]any, error) {
		claims := jwt.MapClaims{}
		_, err := jwt.NewParser(jwt.WithValidMethods([]string{string(i.alg)}), jwt.WithoutClaimsValidation(), jwt.WithJSONNumber()).
			ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) {
				if t.Header["kid"] != i.kid() {
					return nil, errors.New("another kid")
				}
				return i.key.Public(), nil
			})
		return nil, claims, err
	}},
	{"jwx", func(i issuer, text string) ([]byte, map[string]any, error) {
		alg, ok := jwa.LookupSignatureAlgorithm(string(i.alg))
		if !ok {
			return nil, nil, fmt.Errorf("no %s", i.alg)
		}
		payload, err := jwxjws.Verify([]byte(text), jwxjws.WithKey(alg, i.key.Public()), jwxjws.WithCompact())
		return payload, nil, err
	}},
}

// decode reads any JSON value, numbers as they are written.
func decode(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return v, d.Decode(&v)
}
