package directory

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// What browsers are given (WebAuthn Level 3, sections 5.1.9 and 5.1.10).
type (
	creationOptions struct {
		RP            rpEntity     `json:"rp"`
		User          userEntity   `json:"user"`
		Challenge     string       `json:"challenge"`
		Parameters    []parameter  `json:"pubKeyCredParams"`
		Timeout       int64        `json:"timeout"`
		Exclude       []descriptor `json:"excludeCredentials"`
		Authenticator selection    `json:"authenticatorSelection"`
		Attestation   string       `json:"attestation"`
		Extensions    extensions   `json:"extensions"`
	}
	requestOptions struct {
		Challenge    string       `json:"challenge"`
		Timeout      int64        `json:"timeout"`
		RPID         string       `json:"rpId"`
		Allow        []descriptor `json:"allowCredentials"`
		Verification string       `json:"userVerification"`
	}
	rpEntity struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	userEntity struct {
		ID          string `json:"id"` // base64url
		Name        string `json:"name"`
		DisplayName string `json:"displayName"`
	}
	parameter struct {
		Type      string `json:"type"`
		Algorithm int64  `json:"alg"`
	}
	descriptor struct {
		Type       string   `json:"type"`
		ID         string   `json:"id"`
		Transports []string `json:"transports,omitempty"`
	}
	selection struct {
		ResidentKey  string `json:"residentKey"`
		Required     bool   `json:"requireResidentKey"` // for browsers of Level 1
		Verification string `json:"userVerification"`
	}
	extensions struct {
		CredProps bool `json:"credProps"`
	}
)

const (
	publicKeyType = "public-key"
	needed        = "required"
)

// creation asks for a discoverable passkey, so that the user can sign in
// without naming themselves.
func (p *RelyingParty) creation(c *Ceremony, email string, others []Passkey) (json.RawMessage, error) {
	o := creationOptions{
		RP:   rpEntity{p.ID, p.Name},
		User: userEntity{base64.RawURLEncoding.EncodeToString([]byte(c.UserID)), email, email}, Challenge: c.Challenge,
		Timeout: ceremonyLifetime.Milliseconds(), Exclude: descriptors(others),
		Authenticator: selection{needed, true, needed}, Attestation: "none", Extensions: extensions{CredProps: true},
	}
	for _, alg := range algorithms {
		o.Parameters = append(o.Parameters, parameter{publicKeyType, int64(alg)})
	}
	return options(o)
}

// request asks for a passkey: any that the browser has for this host, or one
// of the given.
func (p *RelyingParty) request(c *Ceremony, allowed []Passkey) (json.RawMessage, error) {
	return options(requestOptions{c.Challenge, ceremonyLifetime.Milliseconds(), p.ID, descriptors(allowed), needed})
}

func descriptors(passkeys []Passkey) []descriptor {
	list := make([]descriptor, 0, len(passkeys))
	for _, k := range passkeys {
		list = append(list, descriptor{publicKeyType, k.ID, k.Transports})
	}
	return list
}

func options(o any) (json.RawMessage, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("passkey options: %w", err)
	}
	return text, nil
}
