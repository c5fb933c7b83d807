package jwt

import (
	"crypto/rand"
	"time"

	golang "github.com/golang-jwt/jwt/v5"
)

// claims are those of an ordinary access token of ours, with two roles, as an
// application of golang-jwt or go-jose would declare them.
type claims struct {
	Issuer   string              `json:"iss"`
	Subject  string              `json:"sub"`
	Audience string              `json:"aud"`
	ClientID string              `json:"client_id"`
	SID      string              `json:"sid"`
	IssuedAt *golang.NumericDate `json:"iat"`
	Expiry   *golang.NumericDate `json:"exp"`
	ID       string              `json:"jti"`
	AuthTime int64               `json:"auth_time"`
	AMR      []string            `json:"amr"`
	Epoch    int64               `json:"epoch"`
	Roles    []string            `json:"roles"`
}

func newClaims(now time.Time) *claims {
	return &claims{
		Issuer: issuer, Subject: "01JD4X1YB0Q6W7R8S9T0V1W2X3", Audience: audience, ClientID: "default",
		SID: "3fZk81Yc0aHq72LmN4pRsT9v", IssuedAt: golang.NewNumericDate(now), Expiry: golang.NewNumericDate(now.Add(time.Minute)),
		ID: rand.Text(), AuthTime: now.Add(-time.Hour).Unix(), AMR: []string{"pwd"}, Epoch: now.UnixMicro(),
		Roles: []string{"admin", "editor"},
	}
}

// What golang-jwt asks its claims for.

func (c *claims) GetExpirationTime() (*golang.NumericDate, error) { return c.Expiry, nil }
func (c *claims) GetIssuedAt() (*golang.NumericDate, error)       { return c.IssuedAt, nil }
func (c *claims) GetNotBefore() (*golang.NumericDate, error)      { return nil, nil }
func (c *claims) GetIssuer() (string, error)                      { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                     { return c.Subject, nil }
func (c *claims) GetAudience() (golang.ClaimStrings, error) {
	return golang.ClaimStrings{c.Audience}, nil
}
