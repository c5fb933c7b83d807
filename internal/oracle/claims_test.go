package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	jwxjws "github.com/lestrrat-go/jwx/v3/jws"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/verify"
)

// The rules of those that look at claims, verify's among them.
const (
	wantIssuer   = "https://app.example"
	wantAudience = "orders"
	wantLeeway   = 5 * time.Second
)

// now is a time at which claims are good.
func now() time.Time { return time.Unix(1763770010, 0) }

var verifiers = sync.OnceValue(func() map[jws.Alg]*verify.Verifier {
	all := map[jws.Alg]*verify.Verifier{}
	for _, i := range issuers() {
		v, err := verify.NewLocal(verify.Config{Issuer: wantIssuer, Audience: wantAudience, Clock: now},
			verify.Local{Key: func(kid string) (*jws.PublicKey, bool) { return i.public, kid == i.kid() }})
		if err != nil {
			panic(err)
		}
		all[i.alg] = v
	}
	return all
})

// verified reads as a service does.
func verified(i issuer, text string) ([]byte, map[string]any, error) {
	c, err := verifiers()[i.alg].Check(context.Background(), text)
	if err != nil {
		return nil, nil, err
	}
	var raw map[string]json.RawMessage
	if c.Decode(&raw) != nil {
		return nil, nil, nil // names that differ in case only: taken, but not to be decoded
	}
	claims := map[string]any{}
	for name, value := range raw {
		if claims[name], err = decode(value); err != nil {
			return nil, nil, err
		}
	}
	// What the fields say must be what the others read.
	claims["iss"], claims["sub"], claims["client_id"] = c.Issuer, c.Subject, c.ClientID
	claims["sid"], claims["jti"] = c.SessionID, c.ID
	claims["iat"], claims["exp"], claims["epoch"] = number(c.IssuedAt.Unix()), number(c.ExpiresAt.Unix()), number(c.Epoch)
	if _, list := claims["aud"].([]any); list {
		claims["aud"] = []any{c.Audience}
	} else {
		claims["aud"] = c.Audience
	}
	for name, value := range map[string]any{
		"auth_time": number(c.AuthTime.Unix()), "amr": list(c.Methods), "roles": list(c.Roles), "scope": strings.Join(c.Scope, " "),
	} {
		if _, given := raw[name]; given {
			claims[name] = value
		}
	}
	return nil, claims, nil
}

func number(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

func list(texts []string) []any {
	all := []any{}
	for _, text := range texts {
		all = append(all, text)
	}
	return all
}

// claimOracles are the general libraries again, asked for what verify asks
// for and they have an option for.
var claimOracles = []reader{
	{"go-jose with claims", func(i issuer, text string) ([]byte, map[string]any, error) {
		m, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(i.alg)})
		if err != nil {
			return nil, nil, err
		}
		h := m.Signatures[0].Header
		if h.KeyID != i.kid() || h.ExtraHeaders[jose.HeaderType] != verify.TokenType {
			return nil, nil, errors.New("another kid or typ")
		}
		payload, err := m.Verify(i.key.Public())
		if err != nil {
			return nil, nil, err
		}
		var claims josejwt.Claims
		if err := json.Unmarshal(payload, &claims); err != nil {
			return nil, nil, err
		}
		return payload, nil, claims.ValidateWithLeeway(josejwt.Expected{Issuer: wantIssuer, AnyAudience: josejwt.Audience{wantAudience}, Time: now()}, wantLeeway)
	}},
	{"golang-jwt with claims", func(i issuer, text string) ([]byte, map[string]any, error) {
		claims := jwt.MapClaims{}
		_, err := jwt.NewParser(jwt.WithValidMethods([]string{string(i.alg)}), jwt.WithIssuer(wantIssuer), jwt.WithAudience(wantAudience),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(wantLeeway), jwt.WithTimeFunc(now), jwt.WithJSONNumber()).
			ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) {
				if t.Header["kid"] != i.kid() || t.Header["typ"] != verify.TokenType {
					return nil, errors.New("another kid or typ")
				}
				return i.key.Public(), nil
			})
		return nil, claims, err
	}},
	{"jwx with claims", func(i issuer, text string) ([]byte, map[string]any, error) {
		alg, ok := jwa.LookupSignatureAlgorithm(string(i.alg))
		if !ok {
			return nil, nil, fmt.Errorf("no %s", i.alg)
		}
		payload, err := jwxjws.Verify([]byte(text), jwxjws.WithKey(alg, i.key.Public()), jwxjws.WithCompact())
		if err != nil {
			return nil, nil, err
		}
		claims := jwxjwt.New()
		if err := json.Unmarshal(payload, claims); err != nil {
			return nil, nil, err
		}
		err = jwxjwt.Validate(claims, jwxjwt.WithIssuer(wantIssuer), jwxjwt.WithAudience(wantAudience), jwxjwt.WithClock(jwxjwt.ClockFunc(now)),
			jwxjwt.WithAcceptableSkew(wantLeeway), jwxjwt.WithRequiredClaim("exp"))
		return payload, nil, err
	}},
}
