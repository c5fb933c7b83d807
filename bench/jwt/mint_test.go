package jwt

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	golang "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	jwxjws "github.com/lestrrat-go/jwx/v3/jws"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/memstore"
	"github.com/counterfoil/counterfoil/verify"
)

// BenchmarkMint makes a token: claims, JSON, signature. Counterfoil's part is
// a whole refresh in memory: the session token is read and compared, session
// and subject are looked up, and only then a token is made.
func BenchmarkMint(b *testing.B) {
	for _, alg := range []jws.Alg{jws.ES256, jws.EdDSA} {
		b.Run(string(alg), func(b *testing.B) {
			k := newKey(b, alg)
			message := bytes.Repeat([]byte{'m'}, 440) // header and payload of such a token
			inTurns(b, func(int) {}, []candidate{
				{"bare", func(int) error { _, err := k.sign(message); return err }},
				{"counterfoil", k.refresh(b)},
				{"golang-jwt", k.golangMint()},
				{"go-jose", k.joseMint(b)},
				{"jwx", k.jwxMint(b)},
			})
		})
	}
}

func (k key) refresh(b *testing.B) func(int) error {
	auth, err := counterfoil.New(b.Context(), memstore.New(), counterfoil.Config{
		Issuer: issuer, Audiences: []string{audience}, Algorithm: string(k.alg),
		Seal: counterfoil.SealSecrets(make([]byte, 32)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := auth.Close(); err != nil {
			b.Error(err)
		}
	})
	grant, err := auth.StartSession(b.Context(), counterfoil.SignIn{
		Subject: "01JD4X1YB0Q6W7R8S9T0V1W2X3", Methods: []string{"pwd"}, Roles: []string{"admin", "editor"},
	})
	if err != nil {
		b.Fatal(err)
	}
	token := grant.SessionToken.Reveal()
	return func(int) error {
		_, err := auth.Refresh(b.Context(), token, counterfoil.RefreshRequest{})
		return err
	}
}

func (k key) golangMint() func(int) error {
	method := golang.GetSigningMethod(string(k.alg))
	return func(int) error {
		t := golang.NewWithClaims(method, newClaims(time.Now()))
		t.Header["typ"], t.Header["kid"] = verify.TokenType, kid
		_, err := t.SignedString(k.private)
		return err
	}
}

func (k key) joseMint(b *testing.B) func(int) error {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.alg), Key: k.private},
		(&jose.SignerOptions{}).WithType(verify.TokenType).WithHeader("kid", kid))
	if err != nil {
		b.Fatal(err)
	}
	return func(int) error {
		_, err := josejwt.Signed(signer).Claims(newClaims(time.Now())).Serialize()
		return err
	}
}

func (k key) jwxMint(b *testing.B) func(int) error {
	alg, ok := jwa.LookupSignatureAlgorithm(string(k.alg))
	if !ok {
		b.Fatal("jwx has no " + k.alg)
	}
	headers := jwxjws.NewHeaders()
	for name, value := range map[string]string{"typ": verify.TokenType, "kid": kid} {
		if err := headers.Set(name, value); err != nil {
			b.Fatal(err)
		}
	}
	return func(int) error {
		c := newClaims(time.Now())
		t, err := jwxjwt.NewBuilder().Issuer(c.Issuer).Subject(c.Subject).Audience([]string{c.Audience}).
			IssuedAt(c.IssuedAt.Time).Expiration(c.Expiry.Time).JwtID(c.ID).
			Claim("client_id", c.ClientID).Claim("sid", c.SID).Claim("auth_time", c.AuthTime).
			Claim("amr", c.AMR).Claim("epoch", c.Epoch).Claim("roles", c.Roles).Build()
		if err != nil {
			return err
		}
		_, err = jwxjwt.Sign(t, jwxjwt.WithKey(alg, k.private, jwxjws.WithProtectedHeaders(headers)))
		return err
	}
}
