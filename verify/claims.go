package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/claimnames"
	"github.com/counterfoil/counterfoil/internal/jws"
	"github.com/counterfoil/counterfoil/internal/revoked"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// Claims is what a verified access token says (RFC 9068). It may be shared
// between goroutines and must not be changed.
type Claims struct {
	Issuer    string // iss
	Subject   string // sub
	Audience  string // aud
	ClientID  string // client_id: the application
	SessionID string // sid
	ID        string // jti

	IssuedAt  time.Time // iat
	ExpiresAt time.Time // exp
	AuthTime  time.Time // auth_time: when the user last proved who they are; zero when not told

	Methods []string // amr: how (RFC 8176)
	Epoch   int64    // the subject's epoch that the token was minted under
	Roles   []string
	Scope   []string

	// Degraded (degraded): the authority was cut off from its store and minted
	// from what it had read at IssuedAt ([NoDegraded]).
	Degraded bool

	notBefore int32      // nbf in seconds from iat; within 68 years of it
	token     string     // the token, where it is not in warm
	warm      *warmToken // the entry of a token that is remembered
	verifier  *Verifier  // that verified it
}

// query is what the revocations are asked about these claims.
func (c *Claims) query() revoked.Query {
	return revoked.Query{SessionID: c.SessionID, Subject: c.Subject, TokenID: c.ID, ClientID: c.ClientID, Epoch: c.Epoch}
}

// kid is the key that the token was verified with; empty for claims of no token.
func (c *Claims) kid() string {
	if c.warm != nil {
		return c.warm.key.KID()
	}
	msg, err := jws.Parse(c.token)
	if err != nil {
		return ""
	}
	return msg.Header.Kid
}

// HasRole reports whether the subject had the role when the token was minted.
func (c *Claims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }

// HasScope reports whether the token carries the scope.
func (c *Claims) HasScope(scope string) bool { return slices.Contains(c.Scope, scope) }

// Decode reads all claims of the token, the application's own among them, into
// v, as json.Unmarshal does. Names that encoding/json would take for one
// another, such as plan and Plan, are an error when a token has both.
func (c *Claims) Decode(v any) error {
	token := c.token
	if c.warm != nil {
		token = c.warm.token()
	}
	if token == "" {
		return errors.New("verify: these claims come from no token")
	}
	_, encoded, _ := strings.Cut(token, ".")
	encoded, _, _ = strings.Cut(encoded, ".")
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return fmt.Errorf("verify: decode claims: %w", err)
	}
	seen := make(map[string]string)
	err = strictjson.Object(payload, func(name string, _ []byte) error {
		folded := strictjson.FoldsTo(name)
		if other, ok := seen[folded]; ok {
			return fmt.Errorf("claims %q and %q differ in case only", other, name)
		}
		seen[folded] = name
		return nil
	})
	if err == nil {
		err = json.Unmarshal(payload, v)
	}
	if err != nil {
		return fmt.Errorf("verify: decode claims: %w", err)
	}
	return nil
}

// parseClaims reads the payload of a token. It is called before the signature
// is checked, since the issuer decides which keys are looked at, and trusts
// nothing. It insists on types and on what no token may lack; whether the
// values are good is for later.
func parseClaims(payload []byte) (*Claims, error) {
	c := &Claims{}
	var epoch bool
	var notBefore int64
	err := strictjson.Object(payload, func(name string, value []byte) (err error) {
		switch name {
		case "iss":
			c.Issuer, err = text(value)
		case "sub":
			c.Subject, err = text(value)
		case "aud":
			c.Audience, err = audience(value)
		case "client_id":
			c.ClientID, err = text(value)
		case "sid":
			c.SessionID, err = text(value)
		case "jti":
			c.ID, err = text(value)
		case "iat":
			c.IssuedAt, err = instant(value)
		case "exp":
			c.ExpiresAt, err = instant(value)
		case "nbf":
			var at time.Time
			at, err = instant(value)
			notBefore = at.Unix()
		case "auth_time":
			c.AuthTime, err = instant(value)
		case "amr":
			c.Methods, err = texts(value)
		case "epoch":
			epoch = true
			c.Epoch, err = strictjson.Int(value)
			if err == nil && c.Epoch < 0 {
				err = errors.New("negative")
			}
		case "roles":
			c.Roles, err = texts(value)
		case "scope":
			c.Scope, err = scope(value)
		case "degraded":
			c.Degraded, err = strictjson.Bool(value)
		case "cnf":
			err = errors.New("the token is bound to its sender, which this verifier cannot check")
		default:
			if claimnames.Folds(name) {
				return errors.New("a claim name folds to a reserved one")
			}
		}
		if err != nil {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, need := range [...]struct {
		name    string
		present bool
	}{
		{"iss", c.Issuer != ""}, {"aud", c.Audience != ""}, {"sub", c.Subject != ""},
		{"client_id", c.ClientID != ""}, {"jti", c.ID != ""},
		{"iat", !c.IssuedAt.IsZero()}, {"exp", !c.ExpiresAt.IsZero()}, {"epoch", epoch},
		// A token without sid is a machine's. User routes take none.
		{"sid", c.SessionID != ""},
	} {
		if !need.present {
			return nil, errors.New("claim " + need.name + " is missing")
		}
	}
	if notBefore != 0 {
		c.notBefore = int32(min(max(notBefore-c.IssuedAt.Unix(), math.MinInt32), math.MaxInt32))
	}
	if !c.IssuedAt.Before(c.ExpiresAt) {
		return nil, errors.New("claim exp is not after iat")
	}
	return c, nil
}

// text reads a string that is not empty. The document has been checked, so a
// string without escapes is what stands between the quotes.
func text(value []byte) (string, error) {
	var s string
	if n := len(value); n >= 2 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		s = string(value[1 : n-1])
	} else {
		var err error
		if s, err = strictjson.String(value); err != nil {
			return "", err
		}
	}
	if s == "" {
		return "", errors.New("empty")
	}
	return s, nil
}

func texts(value []byte) ([]string, error) {
	var out []string
	err := strictjson.Array(value, func(element []byte) error {
		s, err := text(element)
		out = append(out, s)
		return err
	})
	return out, err
}

// audience reads a string or an array of one string (RFC 7519 section 4.1.3).
// A token for several services would let each of them act at the others.
func audience(value []byte) (string, error) {
	if len(value) > 0 && value[0] == '"' {
		return text(value)
	}
	all, err := texts(value)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d audiences, want one", len(all))
	}
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// lastInstant is the end of the year 9999, in Unix seconds.
const lastInstant = 253402300799

func instant(value []byte) (time.Time, error) {
	s, err := strictjson.Int(value)
	if err == nil && (s <= 0 || s > lastInstant) {
		err = errors.New("not a time in Unix seconds")
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(s, 0).UTC(), nil
}

// scope reads scope tokens divided by single spaces (RFC 6749 section 3.3).
func scope(value []byte) ([]string, error) {
	s, err := text(value)
	if err != nil {
		return nil, err
	}
	out := strings.Split(s, " ")
	for _, one := range out {
		if !scopeToken(one) {
			return nil, errors.New("not scope tokens divided by single spaces")
		}
	}
	return out, nil
}

func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return false
		}
	}
	return s != ""
}
