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

// BenchmarkVerify checks a token whose key is known: signature, issuer,
// audience, times, claims decoded. No candidate remembers a token.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []jws.Alg{jws.ES256, jws.EdDSA, jws.RS256} {
		b.Run(string(alg), func(b *testing.B) {
			k := newKey(b, alg)
			token := k.token(b)
			inTurns(b, []candidate{
				{"bare", k.bareCheck(b, token)},
				{"counterfoil", k.counterfoilCheck(b, token)},
				{"golang-jwt", k.golangCheck(token)},
				{"go-jose", k.joseCheck(token)},
				{"jwx", k.jwxCheck(b, token)},
			})
		})
	}
}

// token is one that all candidates take.
func (k key) token(b *testing.B) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.alg), Key: k.private},
		(&jose.SignerOptions{}).WithType(verify.TokenType).WithHeader("kid", kid))
	if err != nil {
		b.Fatal(err)
	}
	c := newClaims(time.Now())
	c.Expiry = golang.NewNumericDate(time.Now().Add(time.Hour)) // longer than any run
	payload, err := json.Marshal(c)
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

func (k key) bareCheck(b *testing.B, token string) func() error {
	message := []byte(token[:strings.LastIndexByte(token, '.')])
	signature, err := k.sign(message)
	if err != nil {
		b.Fatal(err)
	}
	return func() error { return k.check(message, signature) }
}

func (k key) counterfoilCheck(b *testing.B, token string) func() error {
	public, err := jws.NewPublicKey(kid, k.alg, k.private.Public())
	if err != nil {
		b.Fatal(err)
	}
	v, err := verify.NewLocal(verify.Config{Issuer: issuer, Audience: audience},
		verify.Local{Key: func(id string) (*jws.PublicKey, bool) { return public, id == kid }})
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		_, err := v.Check(b.Context(), token)
		return err
	}
}

func (k key) golangCheck(token string) func() error {
	parser := golang.NewParser(golang.WithValidMethods([]string{string(k.alg)}), golang.WithIssuer(issuer),
		golang.WithAudience(audience), golang.WithExpirationRequired(), golang.WithIssuedAt(), golang.WithLeeway(5*time.Second))
	public := k.private.Public()
	find := func(t *golang.Token) (any, error) {
		if t.Header["kid"] != kid {
			return nil, errors.New("unknown kid")
		}
		return public, nil
	}
	return func() error {
		_, err := parser.ParseWithClaims(token, &claims{}, find)
		return err
	}
}

func (k key) joseCheck(token string) func() error {
	algs := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.alg)}
	public := k.private.Public()
	return func() error {
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

func (k key) jwxCheck(b *testing.B, token string) func() error {
	alg, ok := jwa.LookupSignatureAlgorithm(string(k.alg))
	if !ok {
		b.Fatal("jwx has no " + k.alg)
	}
	text, public := []byte(token), k.private.Public()
	return func() error {
		t, err := jwxjwt.Parse(text, jwxjwt.WithKey(alg, public), jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience),
			jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithAcceptableSkew(5*time.Second))
		if err != nil {
			return err
		}
		var roles []any
		return t.Get("roles", &roles)
	}
}
