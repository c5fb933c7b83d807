//go:build linux

package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/bench/internal/load"
)

const (
	asJSON = "Content-Type: application/json"
	asForm = "Content-Type: application/x-www-form-urlencoded"
)

// Grant is what a sign-in or a refresh answers, as far as it is used here.
type Grant struct {
	AccessToken  string `json:"access_token"`
	SessionToken string `json:"session_token"`
	Session      struct {
		SID string `json:"sid"`
	} `json:"session"`
}

// SignIn starts a session for a subject that the backend has authenticated.
func (c *Counterfoil) SignIn(subject string) []byte {
	body := fmt.Sprintf(`{"subject":%q,"amr":["pwd"],"device":{"user_agent":"Mozilla/5.0 (X11; Linux x86_64)","ip":"203.0.113.7"}}`, subject)
	return load.Request("POST", "/v1/sessions", c.Address, body, c.authorization(), asJSON)
}

// Refresh trades a session token for an access token.
func (c *Counterfoil) Refresh(sessionToken string) []byte {
	return load.Request("POST", "/v1/auth/refresh", c.Address, "", "Authorization: Bearer "+sessionToken)
}

// Session reads the session of a session token from the store.
func (c *Counterfoil) Session(sessionToken string) []byte {
	return load.Request("GET", "/v1/auth/session", c.Address, "", "Authorization: Bearer "+sessionToken)
}

// Introspect is the live check of a remote verifier.
func (c *Counterfoil) Introspect(accessToken string) []byte {
	form := url.Values{"token": {accessToken}}.Encode()
	return load.Request("POST", "/oauth2/introspect", c.Address, form, c.authorization(), asForm)
}

// Revoke ends a session by its id.
func (c *Counterfoil) Revoke(sid string) []byte {
	return load.Request("DELETE", "/v1/sessions/"+sid, c.Address, "", c.authorization())
}

// RevokeAll ends all sessions of a user.
func (c *Counterfoil) RevokeAll(subject string) []byte {
	return load.Request("DELETE", "/v1/users/"+subject+"/sessions", c.Address, "", c.authorization())
}

func (c *Counterfoil) authorization() string { return "Authorization: Bearer " + c.APIKey }

// Grants sends sign-ins or refreshes and returns what is answered.
func Grants(ctx context.Context, address string, status int, requests [][]byte) (grants []Grant, err error) {
	var mu sync.Mutex
	var broken error
	_, err = load.Run(ctx, load.Plan{Address: address, Connections: 8, Duration: time.Minute, Next: load.Once(requests), Status: status,
		Keep: func(body []byte) {
			var g Grant
			err := json.Unmarshal(body, &g)
			mu.Lock()
			defer mu.Unlock()
			grants, broken = append(grants, g), errors.Join(broken, err)
		}})
	return grants, errors.Join(err, broken)
}

// Start signs subjects in, one session each, and returns the sign-ins that it
// sent and the session tokens.
func (c *Counterfoil) Start(ctx context.Context, subjects int) (signIns [][]byte, sessionTokens []string, err error) {
	for n := range subjects {
		signIns = append(signIns, c.SignIn(fmt.Sprintf("user-%d", n)))
	}
	grants, err := Grants(ctx, c.Address, http.StatusCreated, signIns)
	if err != nil {
		return nil, nil, fmt.Errorf("start sessions: %w", err)
	}
	for _, g := range grants {
		sessionTokens = append(sessionTokens, g.SessionToken)
	}
	return signIns, sessionTokens, nil
}
