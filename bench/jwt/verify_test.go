package jwt

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	golang "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/verify"
)

// BenchmarkVerify checks tokens whose key is known: signature, issuer,
// audience, times, claims decoded. Each token is new in each round, so that
// none is remembered from an earlier check.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []jws.Alg{jws.ES256, jws.EdDSA, jws.RS256} {
		b.Run(string(alg), func(b *testing.B) {
			k := newKey(b, alg)
			sign := k.tokens(b)
			var tokens []string
			on := func(check func(token string) error) func(int) error {
				return func(n int) error { return check(tokens[n]) }
			}
			prepare := func(most int) {
				tokens = tokens[:0]
				for range most {
					tokens = append(tokens, sign())
				}
			}
			inTurns(b, prepare, []candidate{
				{"bare", k.bareCheck(b, sign())},
				{"counterfoil", on(k.counterfoilCheck(b))},
				{"golang-jwt", on(k.golangCheck())},
				{"go-jose", on(k.joseCheck())},
				{"jwx", on(k.jwxCheck(b))},
			})
		})
	}
}

// tokens returns a maker of tokens that all candidates take.
func (k key) tokens(b *testing.B) func() string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.alg), Key: k.private},
		(&jose.SignerOptions{}).WithType(verify.TokenType).WithHeader("kid", kid))
	if err != nil {
		b.Fatal(err)
	}
	return func() string {
		payload, err := json.Marshal(newClaims(time.Now()))
		if err != nil {
			b.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			b.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			b.Fatal(err)
		}
		return token
	}
}

func (k key) bareCheck(b *testing.B, token string) func(int) error {
	message := []byte(token[:strings.LastIndexByte(token, '.')])
	signature, err := k.sign(message)
	if err != nil {
		b.Fatal(err)
	}
	return func(int) error { return k.check(message, signature) }
}

func (k key) counterfoilCheck(b *testing.B) func(token string) error {
	public, err := jws.NewPublicKey(kid, k.alg, k.private.Public())
	if err != nil {
		b.Fatal(err)
	}
	v, err := verify.NewLocal(verify.Config{Issuer: issuer, Audience: audience, CacheTokens: -1},
		verify.Local{Key: func(id string) (*jws.PublicKey, bool) { return public, id == kid }})
	if err != nil {
		b.Fatal(err)
	}
	return func(token string) error {
		_, err := v.Check(b.Context(), token)
		return err
	}
}

func (k key) golangCheck() func(token string) error {
	parser := golang.NewParser(golang.WithValidMethods([]string{string(k.alg)}), golang.WithIssuer(issuer),
		golang.WithAudience(audience), golang.WithExpirationRequired(), golang.WithIssuedAt(), golang.WithLeeway(5*time.Second))
	public := k.private.Public()
	find := func(t *golang.Token) (any, error) {
		if t.Header["kid"] != kid {
			return nil, errors.New("unknown kid")
		}
		return public, nil
	}
	return func(token string) error {
		_, err := parser.ParseWithClaims(token, &claims{}, find)
		return err
	}
}

func (k key) joseCheck() func(token string) error {
	algs := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.alg)}
	public := k.private.Public()
	return func(token string) error {
		t, err := josejwt.ParseSigned(token, algs)
		if err != nil {
			return err
		}
		if t.Headers[0].KeyID != kid {
			return errors.New("unknown kid")
		}
		var registered josejwt.Claims
		var own claims
		if err := t.Claims(public, &registered, &own); err != nil {
			return err
		}
		return registered.ValidateWithLeeway(josejwt.Expected{Issuer: issuer, AnyAudience: josejwt.Audience{audience}, Time: time.Now()}, 5*time.Second)
	}
}

func (k key) jwxCheck(b *testing.B) func(token string) error {
	alg, ok := jwa.LookupSignatureAlgorithm(string(k.alg))
	if !ok {
		b.Fatal("jwx has no " + k.alg)
	}
	public := k.private.Public()
	return func(token string) error {
		t, err := jwxjwt.Parse([]byte(token), jwxjwt.WithKey(alg, public), jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience),
			jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithAcceptableSkew(5*time.Second))
		if err != nil {
			return err
		}
		var roles []any
		return t.Get("roles", &roles)
	}
}
